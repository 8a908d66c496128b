"""Free disk space: checked before a stack starts, and the error for a full disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.errors import StackError
from shared.errors import DependencyDownError, TransientError

FREE_BYTES_MINIMUM = 500 * 1024 * 1024
_WAL_SEGMENT_BYTES = 16 * 1024 * 1024  # PostgreSQL allocates this much at once
FREE_SOME = "free some, or set STARLIFT_HOME to another disk"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ROOM_TEXTS = tuple(os.strerror(number) for number in _NO_ROOM)  # in the words of programs that hit it


def has_room(directory: Path) -> bool:
    """Whether the disk of `directory` has room for a stack."""
    return shutil.disk_usage(directory).free >= FREE_BYTES_MINIMUM


def require_room(directory: Path) -> None:
    """Raises: StackError if the disk of `directory` has too little room."""
    if not has_room(directory):
        raise StackError(
            f"{directory} has {shutil.disk_usage(directory).free // 1024**2} MiB of free space and the local stack needs "
            f"{FREE_BYTES_MINIMUM // 1024**2}; {FREE_SOME}"
        )


def has_any_room(directory: Path) -> bool:
    """Whether PostgreSQL can continue; a program without room may not have had room to log that."""
    return shutil.disk_usage(directory).free >= _WAL_SEGMENT_BYTES


def full_disk(place: str | Path) -> StackError:
    """The error for a full disk."""
    return StackError(f"no space left on the disk of {place}; {FREE_SOME}")


def is_no_room(error: OSError) -> bool:
    """Whether a write failed for lack of space."""
    return error.errno in _NO_ROOM


def found_no_room(words: str) -> bool:
    """Whether the last log lines of a program are about a full disk."""
    return any(text in words for text in _NO_ROOM_TEXTS)


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turn every failure for lack of space into one error, also when a database with data below `directory` caused it.

    Raises: StackError.
    """
    try:
        yield
    except OSError as error:
        if not is_no_room(error):
            raise
        raise full_disk(error.filename or directory) from error
    except (DependencyDownError, TransientError) as error:
        full = [found for found in (directory, directory / "place") if found.exists() and not has_any_room(found)]
        if not full:
            raise
        raise full_disk(full[0]) from error
