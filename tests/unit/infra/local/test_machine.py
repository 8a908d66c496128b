from __future__ import annotations

import errno
from pathlib import Path

import pytest

from infra.local import machine
from infra.local.machine import StackError, disk_errors
from shared.errors import DependencyDownError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_on_a_full_disk_is_reported_in_one_sentence(number: int, tmp_path: Path) -> None:
    with pytest.raises(StackError) as caught, disk_errors(tmp_path):
        raise OSError(number, "whatever", "/a/file")
    assert str(caught.value) == "no space left on the disk of /a/file; free some, or set STARLIFT_HOME to another disk"


def test_other_errors_are_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "whatever")
    with pytest.raises(DependencyDownError), disk_errors(tmp_path):
        raise DependencyDownError("source", "it does not answer")


def test_a_database_that_ended_on_a_full_disk_is_reported_in_the_same_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_WAL_SEGMENT_BYTES", 2**62)
    with pytest.raises(StackError, match="no space left on the disk of"), disk_errors(tmp_path):
        raise DependencyDownError("source", "it ended the connection")
