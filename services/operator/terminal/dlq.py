"""`starlift dlq …`: look at dead letters, replay, edit, discard, export and restore them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from contracts.dead_letters import End, Kind
from services.operator.dlq import audit as kept
from services.operator.dlq.audit import Audited, Author, Removed
from services.operator.dlq.filters import Filter
from services.operator.dlq.hold import holding, together
from services.operator.dlq.letters import Letter
from services.operator.dlq.looking import described, find, matching, plan, survey
from services.operator.dlq.operations import Report, Task, carry_out, edited, put_back
from services.operator.errors import NotFoundError, UsageError
from services.operator.system import System
from services.operator.terminal.dlq_files import created, edited_by_person, letters_in, services_in
from services.operator.terminal.dlq_options import (
    Ident,
    Limit,
    Operator,
    Services,
    Why,
    author_of,
    not_empty,
    takes_filter,
)
from services.operator.terminal.dlq_render import audit_text, ended_text, letter_text, piles_text, plans_text
from services.operator.terminal.harness import ExitCode, complain
from services.operator.terminal.session import AsJson, with_system
from services.operator.wording import counted

SHOWN_AT_ONCE = 5
_CODES = {  # the gravest first
    End.STOPPED: ExitCode.STOPPED,
    End.PARTIAL: ExitCode.PARTIAL,
    End.DONE: ExitCode.DONE,
    End.NOTHING: ExitCode.NOTHING,
}

app = typer.Typer(
    name="dlq",
    help="Show, repair, replay and discard dead letters.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 some letters stayed, 4 nothing matched, 5 stopped by a safety limit, "
    "130 interrupted, 143 terminated: the same command continues with the remaining letters.",
    no_args_is_help=True,
)


@app.command("list")
def list_letters(service: Services = None, *, as_json: AsJson = False) -> None:
    """Show every dead-letter queue: how many letters, since when, and with which failures."""
    piles = with_system(lambda system: together(survey(system, name) for name in _names(system, service)))
    _print(piles, piles_text(piles), as_json=as_json)


@app.command()
def show(ident: Ident, *, as_json: AsJson = False) -> None:
    """Show a dead letter: why it failed, its message, the objects it refers to, how often it was replayed."""

    async def work(system: System) -> None:
        letters = await _found(system, ident, SHOWN_AT_ONCE + 1)
        for letter in letters[:SHOWN_AT_ONCE]:
            view = await described(system, letter)
            _print([view], letter_text(view), as_json=as_json)
        if len(letters) > SHOWN_AT_ONCE:
            complain(f"more than {SHOWN_AT_ONCE} letters begin with '{ident}', only some are shown; give more of the id")

    with_system(work)


@app.command()
@takes_filter
def replay(  # noqa: PLR0913 (each parameter is an option of the command)
    service: Services = None,
    *,
    chosen: Filter,
    execute: Annotated[bool, typer.Option("--execute", help="Send them; without it, only show what would be sent.")] = False,
    canary: Annotated[int, typer.Option(min=0, help="Send this many first, and the others only once these are loaded.")] = 0,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Letters a second.")] = 10.0,
    force: Annotated[bool, typer.Option("--force", help="Also send letters that were replayed three times.")] = False,
    limit: Limit = None,
    operator: Operator = "",
    reason: Why = "",
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their service's queue. Without --execute only show what would be sent."""
    if not execute:
        plans = with_system(
            lambda system: together(plan(system, name, chosen, limit, force=force) for name in _names(system, service))
        )
        decisions = [decision for one in plans for decision in one.decisions]
        _print(decisions, plans_text(plans), as_json=as_json)
        unseen = [one for one in plans if not _saw_all(one.service, one.in_hand_elsewhere)]
        is_whole = not unseen and all(one.decision == "send" for one in decisions)
        _leave([_looked(len(decisions), is_whole=is_whole)], is_silent=as_json)
        return
    task = Task(Kind.REPLAY, chosen, limit, rate, canary, force)
    _carry_out(service, task, author_of(operator, reason), as_json=as_json)


@app.command()
def edit(
    ident: Ident,
    *,
    patch: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A JSON Merge Patch (RFC 7386).")] = None,
    operator: Operator = "",
    reason: Why = "",
    as_json: AsJson = False,
) -> None:
    """Correct a dead letter's message in $EDITOR, or with a patch. It stays a dead letter until it is replayed."""
    letters = with_system(lambda system: _found(system, ident, 2))
    if len(letters) > 1:
        raise UsageError(f"more than one letter begins with '{ident}'; give more of the id")
    (letter,) = letters  # not held meanwhile: a person may take an hour
    instead = edited_by_person(patch, letter, lambda document: edited(letter, document))
    task = Task(Kind.EDIT, Filter(ids=(letter.id,)), limit=1, instead=instead)
    _carry_out(letter.service, task, author_of(operator, reason), as_json=as_json)


@app.command()
@takes_filter
def discard(
    service: Services = None,
    *,
    chosen: Filter,
    reason: Annotated[str, typer.Option(help="Why, for the audit.")],
    limit: Limit = None,
    operator: Operator = "",
    as_json: AsJson = False,
) -> None:
    """Delete dead letters; they are archived first, and `restore` brings them back."""
    if chosen == Filter() and limit is None and service is None:
        raise UsageError("no letters selected: pass a service, a filter or --limit")
    if not reason.strip():
        raise UsageError("no reason given: pass --reason, which is recorded in the audit")
    _carry_out(service, Task(Kind.DISCARD, chosen, limit), author_of(operator, reason), as_json=as_json)


@app.command()
@takes_filter
def export(
    service: Services = None,
    *,
    chosen: Filter,
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="A file that does not exist yet; default: stdout.")
    ] = None,
    limit: Limit = None,
) -> None:
    """Write dead letters as JSON lines, which `restore` reads. They stay in their queues."""

    async def work(system: System) -> End:
        count, is_whole = 0, True
        with nullcontext(sys.stdout) if output is None else created(output) as file:
            for name in _names(system, service):
                async with holding(system, name) as hold:
                    async for letter in matching(system, hold, chosen, limit):
                        file.write(f"{letter.archived.model_dump_json()}\n")
                        count += 1
                is_whole &= _saw_all(name, hold.elsewhere)
        return _looked(count, is_whole=is_whole)

    _leave([with_system(work)], is_silent=True)


@app.command()
def restore(
    what: Annotated[
        str,
        typer.Argument(metavar="FILE|OPERATION", help="JSON lines of `export`, or the id of an operation.", callback=not_empty),
    ],
    *,
    operator: Operator = "",
    reason: Why = "",
    as_json: AsJson = False,
) -> None:
    """Put exported, discarded or replayed letters back into their dead-letter queues."""
    file, who = Path(what), author_of(operator, reason)
    exported = services_in(file) if os.path.isfile(file) else None  # noqa: PTH113 (Path.is_file raises where it may not look)

    async def work(system: System) -> list[End]:
        if exported is None:
            operations = [await put_back(system, await kept.removed(system, what), who)]
        else:
            sources = [Removed(name, letters_in(file, name)) for name in system.dead_letters if name in exported]
            operations = [await put_back(system, source, who) for source in sources]
        return [_shown(operation, as_json=as_json) for operation in operations]

    _leave(with_system(work), is_silent=as_json)


@app.command()
def audit(
    ident: Annotated[
        str, typer.Argument(metavar="OPERATION", help="Beginning of an operation's id; shows the outcome of each letter.")
    ] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Show who did what to dead letters, when and why."""
    found = with_system(lambda system: kept.audit(system, ident))
    if not found:
        raise NotFoundError(f"no operation has an id that begins with '{ident}'" if ident else "there are no operations")
    _print(found, audit_text(found, is_one=bool(ident) and len(found) == 1), as_json=as_json)


def _names(system: System, service: str | None) -> tuple[str, ...]:
    if service is not None and service not in system.dead_letters:
        raise UsageError(f"no dead-letter queue configured for {service}: set STARLIFT_{service.upper()}_DEAD_LETTER_URL")
    return tuple(system.dead_letters) if service is None else (service,)


async def _found(system: System, beginning: str, limit: int) -> list[Letter]:
    letters = await find(system, beginning, limit)
    if not letters:
        raise NotFoundError(
            f"no dead letter's id begins with '{beginning}'; `starlift dlq list` shows some; another command may hold others"
        )
    return letters


def _carry_out(service: str | None, task: Task, author: Author, *, as_json: bool) -> None:
    """One operation for each service, until a safety limit stops one.

    No count says beforehand that a service has no letters: SQS counts late. What is there is known by looking.
    """

    async def work(system: System) -> list[End]:
        ends: list[End] = []
        for name in _names(system, service):
            with _progress(f"{task.kind} of {name}") as report:
                operation = await carry_out(system, name, task, author, report)
            ends.append(_shown(operation, as_json=as_json))
            if ends[-1] is End.STOPPED:
                break
        return ends

    _leave(with_system(work), is_silent=as_json)


@contextmanager
def _progress(title: str) -> Iterator[Report]:
    """Show a bar on stderr if that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(shown, completed=done, total=total)


def _shown(operation: Audited, *, as_json: bool) -> End:
    """Print how an operation ended, unless it found nothing: most services have no dead letters."""
    end = End(operation.ended.end if operation.ended else End.INTERRUPTED)
    if end is not End.NOTHING:
        _print([operation], [ended_text(operation)], as_json=as_json)
    return end


def _looked(count: int, *, is_whole: bool) -> End:
    """How a look at `count` letters ended; `is_whole`: it saw every letter, and could do to each what was asked."""
    return End.PARTIAL if not is_whole else End.DONE if count else End.NOTHING


def _leave(ends: Iterable[End], *, is_silent: bool) -> None:
    """Exit with the gravest end."""
    gravest = min(ends, key=list(_CODES).index, default=End.NOTHING)
    if gravest is End.NOTHING and not is_silent:
        typer.echo("no matching dead letters")
    if _CODES[gravest]:
        raise typer.Exit(_CODES[gravest])


def _saw_all(service: str, elsewhere: int) -> bool:
    """Whether no other command held letters when we looked; complains if one did."""
    if elsewhere:
        letters = counted(elsewhere, "more letter", "more letters")
        complain(f"another command holds {letters} of {service}, which were not examined; try again in a minute")
    return not elsewhere


def _print(models: Iterable[BaseModel], lines: Iterable[str], *, as_json: bool) -> None:
    """The models as JSON lines, or the text for people."""
    for line in (json.dumps(model.model_dump(mode="json")) for model in models) if as_json else lines:
        typer.echo(line)
