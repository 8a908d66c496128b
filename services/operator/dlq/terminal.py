"""Between a command and the person: the system, errors as sentences, progress, exit codes."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from typer.core import TyperGroup

from services.operator.dlq import actions, render
from services.operator.dlq.actions import NoSuchOperationError, UnsendableError
from services.operator.dlq.editing import WrongInputError
from services.operator.dlq.filters import Filter, WrongFilterError
from services.operator.dlq.letters import Letter
from services.operator.dlq.lock import LockedError
from services.operator.dlq.operation import Author, End, Ended, Operation
from services.operator.dlq.options import Service
from services.operator.dlq.survey import find
from services.operator.exit_codes import ComplaintError, DeadLetterExit
from services.operator.locate import WrongSettingsError, operator_settings
from services.operator.render import COMPLAINT, counted
from services.operator.system import SERVICES, System, open_system
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.logs import place_of

Result = TypeVar("Result")
people = Console()
aside = Console(stderr=True)
_ENDS = {
    End.STOPPED: DeadLetterExit.STOPPED,
    End.PARTIAL: DeadLetterExit.PARTIAL,
    End.DONE: DeadLetterExit.DONE,
    End.NOTHING: DeadLetterExit.NOTHING,
}
NONE = "no matching dead letters"
_INTERRUPTED = {"restore": "`starlift dlq audit` says what was put back; repeat it, ids make that harmless"}
_GRAVEST_FIRST = tuple(_ENDS)
_CODES: dict[tuple[type[Exception], ...], DeadLetterExit] = {
    (WrongFilterError, WrongInputError, WrongSettingsError, UnsendableError, NoSuchOperationError): DeadLetterExit.USAGE,
    (LockedError,): DeadLetterExit.LOCKED,
    (DependencyDownError, PermanentError): DeadLetterExit.NO_ACCESS,
    (TransientError,): DeadLetterExit.INTERNAL,
}


class Commands(TyperGroup):
    """The commands of `starlift dlq`, whose every mistake is a sentence and an exit code of its own."""

    def invoke(self, ctx: Any) -> Any:
        """Run one."""
        with complaining(ctx):
            return super().invoke(ctx)


@contextmanager
def complaining(ctx: Any) -> Iterator[None]:
    """What goes wrong in a command becomes one sentence and an exit code."""
    try:
        yield
    except (ComplaintError, typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
        raise
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        text = _INTERRUPTED.get(ctx.invoked_subcommand, "nothing is lost, `starlift dlq resume` goes on with what was begun")
        raise ComplaintError(f"interrupted; {text}", DeadLetterExit.INTERRUPTED) from error
    except Exception as error:
        code = next((code for kinds, code in _CODES.items() if isinstance(error, kinds)), None)
        # Not the text of an error that is none of ours: it may quote a letter.
        text = str(error) if code else f"unexpected {type(error).__qualname__} in {place_of(error)}; this is a bug, report it"
        raise ComplaintError("; ".join([text, *getattr(error, "__notes__", ())]), code or DeadLetterExit.INTERNAL) from error


def on_system(work: Callable[[System], Awaitable[Result]]) -> Result:
    """Do `work` on the Starlift at hand. SIGTERM interrupts as Ctrl-C does: what is in hand is handed back."""

    async def opened() -> Result:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with open_system(operator_settings()) as system:
            return await work(system)

    return asyncio.run(opened())


def names(service: Service | None) -> tuple[str, ...]:
    """The services that a command is about."""
    return SERVICES if service is None else (service.value,)


def author(operator: str, reason: str) -> Author:
    """Who does it: as they say, or as they are logged in. The user of a container has a number, and often no name."""
    if operator:
        return Author(operator, reason)
    try:
        return Author(getpass.getuser(), reason)
    except (KeyError, OSError):
        return Author(f"uid {os.getuid()}", reason)


async def found(system: System, beginning: str, limit: int) -> list[Letter]:
    """The letters that a person means. Raises: ComplaintError if there are none."""
    letters = await find(system, beginning, limit)
    if not letters:
        raise ComplaintError(
            f"no dead letter's id begins with '{beginning}'; `starlift dlq list` shows some, others may have one in hand",
            DeadLetterExit.NOTHING,
        )
    return letters


async def watched(system: System, operation: Operation, *, resumed_by: Author | None = None, as_json: bool) -> End:
    """Carry an operation out under a progress bar, and tell how it ended."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=aside, transient=True, disable=not aside.is_terminal)
    task = bar.add_task(f"{operation.kind} of {operation.service}", total=None)

    def report(done: int, of: int) -> None:
        bar.update(task, completed=done, total=of)

    with bar:
        if resumed_by is None:
            ended = await actions.do(system, operation, report)
        else:
            ended = await actions.resume(system, operation, resumed_by, report)
    return tell(operation, ended, as_json=as_json)


def tell(operation: Operation, ended: Ended, *, as_json: bool) -> End:
    """Say how an operation ended. Of one that found nothing nothing is said: most services have no dead letters."""
    if ended.end is End.NOTHING:
        return ended.end
    if as_json:
        typer.echo(render.json_line(render.operation_as_json(operation, ended)))
    else:
        people.print(render.ended_sentence(operation, ended), highlight=False, markup=False, soft_wrap=True)
    return ended.end


def leave(ends: Sequence[End], *, as_json: bool) -> None:
    """Exit with the gravest end."""
    if set(ends) <= {End.NOTHING} and not as_json:
        people.print(NONE)
    code = _ENDS[min(ends, key=_GRAVEST_FIRST.index, default=End.NOTHING)]
    if code:
        raise typer.Exit(code)


def carry_out(service: Service | None, operation_on: Callable[[str], Operation], *, as_json: bool) -> None:
    """One operation for each service; stops at the first that a safety limit stopped.

    No count says that a service has none: SQS counts late. What is there is known by looking.
    """

    async def work(system: System) -> list[End]:
        ends: list[End] = []
        for name in names(service):
            if End.STOPPED not in ends:
                ends.append(await watched(system, operation_on(name), as_json=as_json))
        return ends

    leave(on_system(work), as_json=as_json)


def move_natively(service: Service | None, who: Author, rate: float, *, execute: bool, as_json: bool) -> None:
    """Let SQS move whole queues."""

    async def work(system: System) -> list[End]:
        if execute:
            return [tell(*await actions.move_natively(system, name, who, rate), as_json=as_json) for name in names(service)]
        counts = {name: await _count(system, name) for name in names(service)}
        counts = {name: count for name, count in counts.items() if count}
        for name, count in counts.items():
            if as_json:
                typer.echo(render.json_line({"service": name, "letters": count, "decision": "move"}))
            else:
                people.print(
                    f"SQS would move about {counted(count, 'letter', 'letters')} of {name}; --execute does it", soft_wrap=True
                )
        return [End.DONE] * len(counts)

    leave(on_system(work), as_json=as_json)


def show_plan(service: Service | None, chosen: Filter, limit: int | None, *, force: bool, as_json: bool) -> None:
    """What a replay would do. Exits as it would."""

    async def work(system: System) -> tuple[render.PlanTable, bool]:
        table, is_whole = render.PlanTable(), True
        for name in names(service):
            async with actions.plan(system, name, chosen, limit=limit, force=force) as decisions:
                async for decision in decisions:
                    table.add(decision)
                    if as_json:
                        typer.echo(render.json_line(render.decision_as_json(decision)))
                is_whole &= saw_all(name, decisions.elsewhere)
        return table, is_whole

    table, is_whole = on_system(work)
    if not as_json:
        table.show(people)
        sent = counted(table.sent.total(), "letter", "letters")
        hint = "; --execute sends them" if table.sent else ""
        people.print(f"{sent} of {table.count:,} would be sent{hint}" if table.count else NONE, highlight=False)
    if table.skipped or not is_whole:
        raise typer.Exit(DeadLetterExit.PARTIAL)
    if not table.count:
        raise typer.Exit(DeadLetterExit.NOTHING)


def saw_all(service: str, elsewhere: int) -> bool:
    """Whether nobody else had letters in hand when we looked; if somebody had, that is told."""
    if elsewhere:
        letters = counted(elsewhere, "more letter", "more letters")
        text = f"somebody has {letters} of {service} in hand, which were not looked at; try again in a minute"
        say_aside(text)
    return not elsewhere


def say_aside(text: str) -> None:
    """What is no result: on stderr."""
    aside.print(f"{COMPLAINT}{text}", highlight=False, markup=False, soft_wrap=True)


async def _count(system: System, service: str) -> int:
    """About: SQS counts late."""
    depth = await system.dead_letters[service].depth()
    return depth.visible + depth.in_flight
