"""A short seed of the chaos; `make chaos SEED=… MINUTES=…` plays a long one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from infra.local.stack import Stack
from tests.chaos.__main__ import run

SEED = 20261122
LASTING = timedelta(seconds=25)


@pytest.mark.timeout(240)
def test_nothing_is_lost_and_nothing_doubled_whatever_dies(tmp_path: Path) -> None:
    home = tmp_path / "stack"
    try:
        report = run(SEED, LASTING, home, print)
    finally:
        Stack.remove(home)
    assert report.findings.is_clean, report.as_json()
    assert report.kills
    assert report.findings.versions_seen
