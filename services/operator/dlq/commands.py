"""`starlift dlq …`. Each command is a few lines here; what it does stands in its own module."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import click
import typer

from services.operator.dlq import actions, editing, render, terminal
from services.operator.dlq.actions import NoSuchOperationError, Replay
from services.operator.dlq.choosing import matching
from services.operator.dlq.filters import Filter, WrongFilterError
from services.operator.dlq.journal import Ended, Operation
from services.operator.dlq.letters import Archived, Letter
from services.operator.dlq.native import RATE_MAXIMUM
from services.operator.dlq.options import AsJson, Limit, Operator, Services, takes_filter
from services.operator.dlq.survey import Pile, references, survey
from services.operator.dlq.terminal import author, finish, names, on_system, people
from services.operator.exit_codes import ComplaintError, DeadLetterExit
from services.operator.system import System

SHOWN_AT_ONCE = 5

dlq_app = typer.Typer(
    name="dlq",
    help="See, understand, repair and replay dead letters.",
    epilog="Exit codes: 0 done, 1 internal, 2 usage, 3 some letters stayed, 4 nothing matched, 5 stopped by a safety limit, "
    "6 locked, 7 no access or queue missing, 130 interrupted (`dlq resume` goes on).",
    no_args_is_help=True,
)
Why = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]
Ident = Annotated[str, typer.Argument(metavar="ID", help="Beginning of a letter's id or of its message's.")]


@dlq_app.command("list")
def list_letters(service: Services = None, *, as_json: AsJson = False) -> None:
    """Show every dead-letter queue: how many, since when, and of which failures."""

    async def work(system: System) -> list[Pile]:
        return await asyncio.gather(*(survey(system, name) for name in names(service)))

    piles = on_system(work)
    if as_json:
        for pile in piles:
            typer.echo(render.json_line(render.pile_as_json(pile)))
    else:
        render.show_piles(people, piles)


@dlq_app.command()
def show(ident: Ident, *, as_json: AsJson = False) -> None:
    """Show a dead letter: why it died, its message, the objects it refers to, how often it was replayed."""

    async def work(system: System) -> None:
        for letter in await terminal.found(system, ident, SHOWN_AT_ONCE):
            objects = await references(system, letter)
            if as_json:
                typer.echo(render.json_line(render.letter_as_json(letter, objects)))
            else:
                render.show_letter(people, letter, objects)

    on_system(work)


@dlq_app.command()
@takes_filter
def replay(  # noqa: PLR0913 (each parameter is an option of the command)
    service: Services = None,
    *,
    chosen: Filter,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without, only say what would be done.")] = False,
    canary: Annotated[int, typer.Option(min=0, help="Send so many first, and go on only when they are loaded.")] = 0,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Letters a second.")] = 10.0,
    force: Annotated[bool, typer.Option("--force", help="Also letters that were replayed three times.")] = False,
    native: Annotated[bool, typer.Option("--native", help="Let SQS move everything, unchecked and unrecorded.")] = False,
    limit: Limit = None,
    operator: Operator = "",
    reason: Why = "",
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their service's queue. Says only what it would do, unless --execute is given."""
    who = author(operator, reason)
    if native:
        if chosen != Filter() or canary or limit or force or rate > RATE_MAXIMUM:
            raise ComplaintError(
                f"--native moves all as it is, {RATE_MAXIMUM} a second at most; leave out filters, --canary, --limit, --force",
                DeadLetterExit.USAGE,
            )
        terminal.move_natively(service, who, rate, execute=execute)
    elif execute:
        how = Replay(rate, canary, force)
        terminal.carry_out(service, lambda name: actions.replay_operation(name, chosen, who, how, limit), as_json=as_json)
    else:
        terminal.show_plan(service, chosen, limit, force=force, as_json=as_json)


@dlq_app.command()
def edit(
    ident: Ident,
    *,
    patch: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A JSON Merge Patch (RFC 7386).")] = None,
    operator: Operator = "",
    reason: Why = "",
    as_json: AsJson = False,
) -> None:
    """Correct a dead letter's message in $EDITOR, or by a patch. It stays a dead letter until it is replayed."""

    async def read(system: System) -> Letter:
        letters = await terminal.found(system, ident, 2)
        if len(letters) > 1:
            raise WrongFilterError(f"more than one letter begins with '{ident}'; write more of the id")
        return letters[0]

    letter = on_system(read)  # not held meanwhile: a person may take an hour
    with terminal.complaining():
        document = editing.edited(letter, patch)
        operation = actions.edit_operation(letter, document, author(operator, reason))
    finish([(operation, on_system(lambda system: terminal.watched(system, operation)))], as_json=as_json)


@dlq_app.command()
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
        raise ComplaintError("say which letters: a service, a filter or --limit", DeadLetterExit.USAGE)
    who = author(operator, reason)
    terminal.carry_out(service, lambda name: actions.discard_operation(name, chosen, who, limit), as_json=as_json)


@dlq_app.command()
@takes_filter
def export(
    service: Services = None,
    *,
    chosen: Filter,
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="A file that does not exist yet; without: stdout.")
    ] = None,
    limit: Limit = None,
) -> None:
    """Write dead letters as JSON lines, as `restore` reads them. They stay where they are."""
    if output is not None and output.exists():
        raise ComplaintError(f"'{output}' exists; choose another name", DeadLetterExit.USAGE)

    async def work(system: System) -> int:
        count = 0
        with click.open_file("-" if output is None else str(output), "w") as file:
            for name in names(service):
                async for letter in matching(system, name, chosen, limit):
                    file.write(f"{Archived.of(letter).model_dump_json()}\n")
                    count += 1
        return count

    if not on_system(work):
        raise typer.Exit(DeadLetterExit.NOTHING)


@dlq_app.command()
def restore(
    what: Annotated[str, typer.Argument(metavar="FILE|OPERATION", help="JSON lines of `export`, or the id of a discard.")],
    *,
    operator: Operator = "",
    reason: Why = "",
) -> None:
    """Put exported or discarded letters back into their dead-letter queues."""
    with terminal.complaining():
        exported = editing.read_archive(Path(what)) if Path(what).is_file() else None

    async def work(system: System) -> None:
        letters = exported if exported is not None else await actions.archived(system, what)
        counts = await actions.restore(system, letters, author(operator, reason))
        people.print(
            ", ".join(f"{count:,} of {name}" for name, count in counts.items()) or "nothing to restore", highlight=False
        )

    on_system(work)


@dlq_app.command()
def resume(
    ident: Annotated[str, typer.Argument(metavar="OPERATION", help="Beginning of its id; without: the one there is.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Go on with an operation that was interrupted."""

    async def work(system: System) -> tuple[Operation, Ended]:
        found = await actions.interrupted(system, ident)
        if not found:
            raise ComplaintError("no operation is to be resumed; `starlift dlq audit` lists all", DeadLetterExit.NOTHING)
        if len(found) > 1:
            raise NoSuchOperationError(f"several can be resumed, say which: {', '.join(one.id for one in found)}")
        return found[0], await terminal.watched(system, found[0], resumed=True)

    finish([on_system(work)], as_json=as_json)


@dlq_app.command()
def audit(
    ident: Annotated[str, typer.Argument(metavar="OPERATION", help="Beginning of an id: show every letter of it.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Show who did what to dead letters, when and why."""

    async def work(system: System) -> None:
        found = [pair for pair in await actions.audit(system) if pair[0].id.startswith(ident)]
        if as_json:
            for pair in found:
                typer.echo(render.json_line(render.operation_as_json(*pair)))
        elif found:
            render.show_operations(people, found)
        if ident and len(found) == 1 and not as_json:
            render.show_journal(people, await actions.journal_of(system, found[0][0]))
        if not found:
            raise ComplaintError("there is no such operation in the last 90 days", DeadLetterExit.NOTHING)

    on_system(work)
