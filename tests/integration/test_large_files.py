"""A file of the drop zone is read in memory that does not depend on its size."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MEMORY_MIB = 300


@pytest.mark.parametrize("arguments", [["--mib", "20"], ["--mib", "20", "--columns", "1500"]], ids=["long", "wide"])
def test_a_large_file_is_read_in_bounded_memory(arguments: list[str]) -> None:
    """Pages are so small that 20 MiB have as many as it takes: 1 GiB has the same peak (tests/bench/files.py)."""
    command = [sys.executable, "-m", "tests.bench.files", *arguments]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=600).stdout)
    assert found["bad"] == 0
    assert found["records"] > 0
    assert found["peak_rss_mib"] < MEMORY_MIB
