"""What this machine offers: TCP ports, free disk space, and an account for a server that refuses to run as root."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import DependencyDownError, PermanentError, TransientError

# The advice where no PostgreSQL can be embedded.
OWN_DATABASES = "give `starlift up` databases of your own with STARLIFT_UP_SOURCE_URL and STARLIFT_UP_WAREHOUSE_URL"


class StackError(PermanentError):
    """The local stack cannot do its work. The text is the sentence for the person at the terminal: rule, value, what to do."""


LOOPBACK = "127.0.0.1"


def free_port(preferred: int | None = None) -> int:
    """`preferred` when nothing listens there, else one that the system chose. Another process may take it before its use."""
    if preferred is not None and is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed connection's remains don't count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def write_private(file: Path, text: str) -> None:
    """Replace `file` by one that only we may read, whole or not at all."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(file)


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


COPY_PREFIX = "postgresql-"  # a copy of its programs
_NOEXEC = getattr(os, "ST_NOEXEC", 0)  # Linux


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine."""

    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """The user `nobody` if we are root, else None: no other user is needed. Raises: StackError if there is no such user."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError(
            "PostgreSQL refuses to run as root, and this machine has no user 'nobody' to run it as; add one to /etc/passwd, "
            f"run as an ordinary user, or {OWN_DATABASES}"
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def require_name() -> None:
    """Raises: StackError if our user has no name: PostgreSQL's initdb looks it up and fails without one."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise StackError(
            f"user id {os.geteuid()} has no name, and PostgreSQL's initdb needs one; add it to /etc/passwd, or {OWN_DATABASES}"
        ) from None


def popen_options(account: Account | None) -> dict[str, Any]:
    """What makes `subprocess` run a program as `account`, and as nothing else."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def may_reach(path: Path, account: Account) -> bool:
    """Whether `account` may enter `path`, or read and run it if it is a file, judged by the permission bits on the way."""
    resolved = path.resolve()
    return all(_grants(step, account, stat.S_IXOTH) for step in (resolved, *resolved.parents)) and _grants(
        resolved, account, stat.S_IROTH if resolved.is_file() else stat.S_IXOTH
    )


def _grants(path: Path, account: Account, bit: int) -> bool:
    """`bit` is the one for others; the owner's stands six places higher."""
    status = path.stat()
    return bool(status.st_mode & (bit << 6 if status.st_uid == account.uid else bit))


def reachable_directory(state: Path, account: Account | None) -> Path:
    """`state`, or a temporary directory if `account` can't reach `state` (below /root, say).

    The link `state/place` remembers the temporary one. When the temporary directory is emptied, a new one takes its place.
    Raises: StackError.
    """
    link = state / "place"
    if link.is_dir() and link.stat().st_uid == os.geteuid():
        return link.resolve()
    if account is None or may_reach(state, account):
        return state
    place = Path(tempfile.mkdtemp(prefix="starlift-", dir=_temporary_directory(state, account)))
    place.chmod(0o711)
    link.unlink(missing_ok=True)
    link.symlink_to(place)
    return place


def _temporary_directory(state: Path, account: Account) -> Path:
    """A temporary directory with room that `account` can reach, preferably one that programs can run in."""
    candidates = dict.fromkeys((Path(tempfile.gettempdir()), Path("/var/tmp")))  # noqa: S108 - ours is made by mkdtemp  # nosec B108
    fit = [found for found in candidates if found.is_dir() and may_reach(found, account) and has_room(found)]
    if not fit:
        raise StackError(
            f"PostgreSQL can't run as root, the user that runs it instead can't reach {state}, and none of "
            f"{', '.join(map(str, candidates))} is open to it with {FREE_BYTES_MINIMUM // 1024**2} MiB of free space; "
            "set TMPDIR or STARLIFT_HOME to another place"
        )
    return min(fit, key=is_noexec)


def is_noexec(directory: Path) -> bool:
    """Whether `directory` is mounted noexec."""
    return bool(os.statvfs(directory).f_flag & _NOEXEC)


def remove_unused_place(state: Path) -> None:
    """Remove what `reachable_directory` made outside of `state`, unless there is more in it than a copy of programs."""
    if all(found.name.startswith(COPY_PREFIX) for found in (state / "place").glob("*")):
        remove_place(state)


def remove_place(state: Path) -> None:
    """Remove what `reachable_directory` made outside of `state`."""
    link = state / "place"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()
