"""Between a command and the person: the system, errors as sentences, progress, exit codes."""

from __future__ import annotations

import asyncio
import getpass
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from services.operator.dlq import actions, render
from services.operator.dlq.actions import Author, NoSuchOperationError, UnsendableError
from services.operator.dlq.editing import WrongPatchError
from services.operator.dlq.filters import Filter, WrongFilterError
from services.operator.dlq.journal import End, Ended, Operation
from services.operator.dlq.letters import Letter
from services.operator.dlq.lock import LockedError
from services.operator.dlq.options import Service
from services.operator.dlq.survey import find
from services.operator.exit_codes import ComplaintError, DeadLetterExit
from services.operator.locate import WrongSettingsError, operator_settings
from services.operator.render import counted
from services.operator.system import SERVICES, System, open_system
from shared.errors import DependencyDownError, PermanentError, TransientError

Result = TypeVar("Result")
people = Console()
aside = Console(stderr=True)
_ENDS = {
    End.STOPPED: DeadLetterExit.STOPPED,
    End.PARTIAL: DeadLetterExit.PARTIAL,
    End.DONE: DeadLetterExit.DONE,
    End.NOTHING: DeadLetterExit.NOTHING,
}
_GRAVEST_FIRST = tuple(_ENDS)
_MENDABLE = (
    WrongFilterError,
    WrongPatchError,
    WrongSettingsError,
    UnsendableError,
    NoSuchOperationError,
)


def on_system(work: Callable[[System], Awaitable[Result]]) -> Result:
    """Do `work` on the Starlift at hand. SIGTERM interrupts as Ctrl-C does: what is in hand is handed back."""

    async def opened() -> Result:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with open_system(operator_settings()) as system:
            return await work(system)

    with complaining():
        return asyncio.run(opened())


@contextmanager
def complaining() -> Iterator[None]:
    """What a person can mend becomes one sentence and an exit code."""
    try:
        yield
    except _MENDABLE as error:
        raise ComplaintError(str(error), DeadLetterExit.USAGE) from error
    except LockedError as error:
        raise ComplaintError(str(error), DeadLetterExit.LOCKED) from error
    except (DependencyDownError, PermanentError) as error:
        raise ComplaintError(str(error), DeadLetterExit.NO_ACCESS) from error
    except TransientError as error:
        raise ComplaintError(str(error), DeadLetterExit.INTERNAL) from error
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        text = "interrupted; nothing is lost, `starlift dlq resume` goes on with what was begun"
        raise ComplaintError(text, DeadLetterExit.INTERRUPTED) from error


def names(service: Service | None) -> tuple[str, ...]:
    """The services that a command is about."""
    return SERVICES if service is None else (service.value,)


def author(operator: str, reason: str) -> Author:
    """Who does it: as they say, or as they are logged in."""
    return Author(operator or getpass.getuser(), reason)


async def found(system: System, beginning: str, limit: int) -> list[Letter]:
    """The letters that a person means. Raises: ComplaintError if there are none."""
    letters = await find(system, beginning, limit)
    if not letters:
        raise ComplaintError(
            f"no dead letter's id begins with '{beginning}'; `starlift dlq list` shows some, others may have one in hand",
            DeadLetterExit.NOTHING,
        )
    return letters


async def watched(system: System, operation: Operation, *, resumed: bool = False) -> Ended:
    """Carry an operation out under a progress bar."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=aside, transient=True)
    with bar:
        task = bar.add_task(f"{operation.kind} of {operation.service}", total=None)

        def report(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        do = actions.resume if resumed else actions.do
        return await do(system, operation, report)


def carry_out(service: Service | None, operation_on: Callable[[str], Operation], *, as_json: bool) -> None:
    """One operation for each service that has dead letters; stops at the first that a safety limit stopped."""

    async def work(system: System) -> list[tuple[Operation, Ended]]:
        ends: list[tuple[Operation, Ended]] = []
        for name in names(service):
            depth = await system.dead_letters[name].depth()
            if depth.visible + depth.in_flight == 0:
                continue
            operation = operation_on(name)
            ends.append((operation, await watched(system, operation)))
            if ends[-1][1].end is End.STOPPED:
                break
        return ends

    finish(on_system(work), as_json=as_json)


def finish(ends: Sequence[tuple[Operation, Ended]], *, as_json: bool) -> None:
    """Say how operations ended; exit with the gravest end."""
    for operation, ended in ends:
        if as_json:
            typer.echo(render.json_line(render.operation_as_json(operation, ended)))
        else:
            people.print(render.ended_sentence(operation, ended), highlight=False, markup=False, soft_wrap=True)
    if not ends and not as_json:
        people.print("there are no dead letters")
    gravest = min((ended.end for _, ended in ends), key=_GRAVEST_FIRST.index, default=End.NOTHING)
    if _ENDS[gravest]:
        raise typer.Exit(_ENDS[gravest])


def show_plan(service: Service | None, chosen: Filter, limit: int | None, *, force: bool, as_json: bool) -> None:
    """What a replay would do. Exits as it would."""

    async def work(system: System) -> render.PlanTable:
        table = render.PlanTable()
        for name in names(service):
            async for decision in actions.plan(system, name, chosen, limit=limit, force=force):
                table.add(decision)
                if as_json:
                    typer.echo(render.json_line(render.decision_as_json(decision)))
        return table

    table = on_system(work)
    if not as_json:
        table.show(people)
        sent = counted(table.sent.total(), "letter", "letters")
        people.print(f"{sent} of {table.count:,} would be sent; --execute sends them", highlight=False)
    if not table.count:
        raise typer.Exit(DeadLetterExit.NOTHING)
    if table.skipped:
        raise typer.Exit(DeadLetterExit.PARTIAL)


def move_natively(service: Service | None, who: Author, rate: float, *, execute: bool) -> None:
    """Let SQS move whole queues."""

    async def work(system: System) -> list[str]:
        moved = []
        for name in names(service):
            depth = await system.dead_letters[name].depth()
            if depth.visible and execute:
                await actions.move_natively(system, name, who, rate)
            if depth.visible:
                moved.append(f"{depth.visible:,} of {name}")
        return moved

    moved = on_system(work)
    told = "SQS moves" if execute else "SQS would move, with --execute,"
    people.print(f"{told} {', '.join(moved) or 'nothing'}", highlight=False)
    if not moved:
        raise typer.Exit(DeadLetterExit.NOTHING)
