from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path

from tests.end_to_end.conftest import Starlift
from tests.fixtures.busy_core import busy_core

IS_BUSY = "STARLIFT_BUSY" in os.environ  # set by busy.sh; anywhere else a busy core would only keep the other tests waiting


def test_the_demo_ends_equal_on_one_busy_core_and_leaves_nothing(starlift: Starlift) -> None:
    theirs = Path(starlift.home.parent / "demo" / "a file of the person's")
    theirs.parent.mkdir()
    theirs.touch()
    with busy_core() if IS_BUSY else nullcontext():
        answer = starlift("demo", "--seconds", "3", "--orders", "100")
    for source in ("totesys", "rates"):
        assert f"verdict of {source}" in answer.out
    assert answer.out.count("EQUAL as of run") == 2
    assert re.search(r"sales in GBP +£[\d,]+\.\d\d for \d+ sales, at each day's rate", answer.out)
    assert "without a rate" not in answer.out
    assert "commit to warehouse" in answer.out
    assert "first load: " in answer.out
    assert answer.err == ""
    assert not list(starlift.home.iterdir())
    assert theirs.exists()


def test_the_demo_of_late_commits_shows_the_rows_that_a_watermark_loses(starlift: Starlift) -> None:
    answer = starlift("demo", "--late-commit")
    assert "Of 3 rows that were committed late, the watermark lost 3, for good; Starlift 0." in answer.out
    lost = [line for line in answer.out.splitlines() if "LOST" in line]
    assert [line.split("LOST")[1].split()[0] for line in lost] == ["yes"] * 3
    assert not list(starlift.home.iterdir())
