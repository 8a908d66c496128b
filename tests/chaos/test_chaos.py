"""A short seed of the chaos; `make chaos SEED=… MINUTES=…` plays a long one."""

from __future__ import annotations

import json
import subprocess
import sys

SEED = 20261122
MINUTES = 0.4


def test_no_row_is_lost_or_doubled_whatever_dies() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seed", str(SEED), "--minutes", str(MINUTES)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(answer.stdout[answer.stdout.index("\n{") :])
    assert report["clean"], answer.stdout + answer.stderr
    assert report["kills"]
    assert report["findings"]["versions_seen"]
    assert report["findings"]["rows_gone"]
    assert answer.returncode == 0
