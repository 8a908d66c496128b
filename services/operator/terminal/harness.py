"""Runs a command: every error becomes one sentence on stderr and an exit code, a signal stops it, no traceback is printed."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import TYPE_CHECKING

import typer

from services.operator.errors import NotFoundError, NotLoadedError, OperatorError, UsageError
from services.operator.wording import COMPLAINT
from shared.errors import DependencyDownError, PermanentError, TransientError

if TYPE_CHECKING:
    from typer.core import TyperGroup


class ExitCode(IntEnum):
    """Scripts rely on these numbers. Where two names share a number, which of them is meant follows from the command."""

    DONE = 0
    FAILED = 1  # a database, a queue or the stack does not do what it should, or a bug
    USAGE = 2  # wrong arguments or settings
    DIFFERENT = 3  # the warehouse does not equal the source
    CHANGED = 3  # the source's catalog is not as the contract repeats it, or the warehouse would be changed
    PARTIAL = 3  # some dead letters stayed where they are; the table, or --json, says why
    NOT_LOADED = 4  # a run or a row that was asked for is not in the warehouse, or a proof is pending
    NOTHING = 4  # nothing matches what was asked for
    UNHEALTHY = 5  # something needs a person: `starlift status` names it
    STOPPED = 5  # a safety limit stopped the operation
    INTERRUPTED = 130  # by SIGINT, as Ctrl-C sends it: 128 + 2
    TERMINATED = 143  # by SIGTERM: 128 + 15


EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 something differs or some dead letters stayed, "
    "4 not loaded, pending or nothing found, 5 not healthy or stopped by a safety limit, 130 interrupted, 143 terminated."
)

# The first class that fits decides, so a subclass stands before its base.
_CODES: dict[type[Exception] | tuple[type[Exception], ...], ExitCode] = {
    UsageError: ExitCode.USAGE,
    NotLoadedError: ExitCode.NOT_LOADED,
    NotFoundError: ExitCode.NOTHING,
    (OperatorError, DependencyDownError, PermanentError, TransientError): ExitCode.FAILED,
}


class TerminatedError(KeyboardInterrupt):
    """SIGTERM arrived. Whatever cleans up after Ctrl-C cleans up after this."""


def run_command(group: TyperGroup, arguments: Sequence[str]) -> int:
    """Run one command of `group` and return its exit code."""
    try:
        with group.make_context("starlift", list(arguments)) as context:
            group.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except typer.TyperException as error:  # wrong usage, as typer finds it
        error.show()  # type: ignore[attr-defined]  # every one that typer raises is a ClickException
        return ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort) as stop:
        is_term = isinstance(stop, TerminatedError)
        complain(f"interrupted by {'SIGTERM' if is_term else 'Ctrl-C'}; it is safe to run the command again")
        return ExitCode.TERMINATED if is_term else ExitCode.INTERRUPTED
    except BrokenPipeError:  # `| head`: whoever reads our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001 (the one place that turns errors into exit codes)
        return explained(error)
    return ExitCode.DONE


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM stop the block as Ctrl-C does, with an exit code of its own."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def complain(sentence: str) -> None:
    """Print what is not a result, on stderr."""
    typer.echo(f"{COMPLAINT}{sentence}", err=True)


def explained(error: Exception) -> int:
    """Print what went wrong, in one sentence; return the exit code."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    if code is not None:
        complain("; ".join([str(error), *getattr(error, "__notes__", ())]))
        return code
    if isinstance(error, OSError):  # a full disk, a file that may not be read: its text is the system's, not a row's
        complain(f"{error}; make room, or correct the path or its permissions")
        return ExitCode.FAILED
    # Not the text of another error: it may quote a row.
    from shared.logs import place_of  # noqa: PLC0415 (structlog takes a while to import, and this is a bug)

    is_shown = os.environ.get("STARLIFT_LOG_LEVEL", "").lower() == "debug"
    advice = "" if is_shown else "; set STARLIFT_LOG_LEVEL=debug to print the traceback"
    if is_shown:
        typer.echo("".join(_frames(error)), err=True, nl=False)
    complain(f"unexpected {type(error).__qualname__} in {place_of(error)}: this is a bug, please report it{advice}")
    return ExitCode.FAILED


def _frames(error: BaseException) -> Iterator[str]:
    """The traceback without the texts of the errors, the oldest error first."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _frames(earlier)
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__qualname__}\n"
