#!/bin/sh
# Runs a command beside two busy loops, which end with it. STARLIFT_BUSY tells the demo's test to run it on one busy core.
set -eu
export STARLIFT_BUSY=1
loops=
trap 'kill $loops 2>/dev/null || :' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for _ in 1 2; do
    while kill -0 $$ 2>/dev/null; do :; done &
    loops="$loops $!"
done
"$@"
