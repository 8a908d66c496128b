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


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine."""

    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """`nobody` if we are root, else None: we are good enough ourselves."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


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
    """`state`, or where `account` can't reach it (it is below /root, say) a directory below the system's temporary one.

    The link `state/place` remembers the latter. When the temporary directory is emptied, a new one takes its place.
    """
    link = state / "place"
    if link.is_dir() and link.stat().st_uid == os.geteuid():
        return link.resolve()
    if account is None or may_reach(state, account):
        return state
    place = Path(tempfile.mkdtemp(prefix="starlift-"))
    place.chmod(0o711)
    link.unlink(missing_ok=True)
    link.symlink_to(place)
    return place


def remove_place(state: Path) -> None:
    """Removes what `reachable_directory` made outside of `state`."""
    link = state / "place"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()
