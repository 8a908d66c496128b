"""Whom a server runs as that refuses root, and where that account can work."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.disk import FREE_BYTES_MINIMUM, has_room
from infra.local.errors import OWN_DATABASES, StackError

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
    """Removes what `reachable_directory` made outside of `state`, unless there is more in it than a copy of programs."""
    if all(found.name.startswith(COPY_PREFIX) for found in (state / "place").glob("*")):
        remove_place(state)


def remove_place(state: Path) -> None:
    """Removes what `reachable_directory` made outside of `state`."""
    link = state / "place"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()
