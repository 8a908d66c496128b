from __future__ import annotations

from pathlib import Path

from tests.end_to_end.conftest import Starlift


def test_the_demo_ends_equal_and_leaves_nothing(starlift: Starlift) -> None:
    theirs = Path(starlift.home.parent / "demo" / "a file of the person's")
    theirs.parent.mkdir()
    theirs.touch()
    answer = starlift("demo", "--seconds", "3", "--orders", "300")
    assert "EQUAL as of run" in answer.out
    assert "commit to warehouse" in answer.out
    assert "first load: " in answer.out
    assert answer.err == ""
    assert not list(starlift.home.iterdir())
    assert theirs.exists()
