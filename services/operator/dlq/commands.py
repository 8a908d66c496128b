"""`starlift dlq …`. Each command is a few lines here; what it does stands in its own module."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from services.operator.dlq import actions, editing, render, terminal
from services.operator.dlq.actions import NoSuchOperationError, Replay
from services.operator.dlq.calls import together
from services.operator.dlq.choosing import matching
from services.operator.dlq.filters import Filter, WrongFilterError
from services.operator.dlq.letters import Archived, Letter
from services.operator.dlq.native import RATE_MAXIMUM
from services.operator.dlq.operation import End, Operation
from services.operator.dlq.options import AsJson, Limit, Operator, Services, takes_filter
from services.operator.dlq.survey import references, survey
from services.operator.dlq.terminal import Commands, author, leave, names, on_system, people, tell, watched
from services.operator.exit_codes import ComplaintError, DeadLetterExit
from services.operator.system import System

SHOWN_AT_ONCE = 5

dlq_app = typer.Typer(
    name="dlq",
    cls=Commands,
    help="See, understand, repair and replay dead letters.",
    epilog="Exit codes: 0 done, 1 internal, 2 usage, 3 some letters stayed, 4 nothing matched, 5 stopped by a safety limit, "
    "6 locked, 7 no access or queue missing, 130 interrupted (`dlq resume` goes on).",
    no_args_is_help=True,
)
Why = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]


def _not_empty(ident: str) -> str:
    if not ident:  # an unset variable of a script must not mean any of them
        raise WrongFilterError("an id must not be empty")
    return ident


Ident = Annotated[
    str, typer.Argument(metavar="ID", help="Beginning of a letter's id or of its message's.", callback=_not_empty)
]
What = Annotated[
    str,
    typer.Argument(metavar="FILE|OPERATION", help="JSON lines of `export`, or the id of a discard.", callback=_not_empty),
]


@dlq_app.command("list")
def list_letters(service: Services = None, *, as_json: AsJson = False) -> None:
    """Show every dead-letter queue: how many, since when, and of which failures."""
    piles = on_system(lambda system: together(survey(system, name) for name in names(service)))
    if as_json:
        for pile in piles:
            typer.echo(render.json_line(render.pile_as_json(pile)))
    else:
        render.show_piles(people, piles)


@dlq_app.command()
def show(ident: Ident, *, as_json: AsJson = False) -> None:
    """Show a dead letter: why it died, its message, the objects it refers to, how often it was replayed."""

    async def work(system: System) -> None:
        letters = await terminal.found(system, ident, SHOWN_AT_ONCE + 1)
        for letter in letters[:SHOWN_AT_ONCE]:
            objects = await references(system, letter)
            if as_json:
                typer.echo(render.json_line(render.letter_as_json(letter, objects)))
            else:
                render.show_letter(people, letter, objects)
        if len(letters) > SHOWN_AT_ONCE:
            text = f"more than {SHOWN_AT_ONCE} letters begin with '{ident}', these are some; write more of the id"
            terminal.say_aside(text)

    on_system(work)


@dlq_app.command()
@takes_filter
def replay(  # noqa: PLR0913 (each parameter is an option of the command)
    service: Services = None,
    *,
    chosen: Filter,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without, only say what would be done.")] = False,
    canary: Annotated[int, typer.Option(min=0, help="Send this many first, and go on only when they are loaded.")] = 0,
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
        terminal.move_natively(service, who, rate, execute=execute, as_json=as_json)
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
    who = author(operator, reason)
    operation = editing.edited(letter, patch, lambda document: actions.edit_operation(letter, document, who))
    leave([on_system(lambda system: watched(system, operation, as_json=as_json))], as_json=as_json)


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
    if not reason.strip():
        raise ComplaintError("say why: --reason is kept in the audit", DeadLetterExit.USAGE)
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

    async def work(system: System) -> tuple[int, bool]:
        count, is_whole = 0, True
        with nullcontext(sys.stdout) if output is None else output.open("x", encoding="utf-8") as file:
            for name in names(service):
                async with matching(system, name, chosen, limit) as letters:
                    async for letter in letters:
                        file.write(f"{Archived.of(letter).model_dump_json()}\n")
                        count += 1
                    is_whole &= terminal.saw_all(name, letters.elsewhere)
        return count, is_whole

    try:
        count, is_whole = on_system(work)
    except OSError as error:
        if output is None:
            raise
        raise ComplaintError(
            f"'{output}' can't be written ({error.strerror}); choose another name", DeadLetterExit.USAGE
        ) from error
    if not is_whole:
        raise typer.Exit(DeadLetterExit.PARTIAL)
    if not count:
        raise typer.Exit(DeadLetterExit.NOTHING)


@dlq_app.command()
def restore(
    what: What,
    *,
    operator: Operator = "",
    reason: Why = "",
    as_json: AsJson = False,
) -> None:
    """Put exported or discarded letters back into their dead-letter queues."""
    file, who = Path(what), author(operator, reason)
    exported = editing.services_in(file) if os.path.isfile(file) else None  # noqa: PTH113 (Path.is_file raises where it may not look)

    async def work(system: System) -> list[End]:
        if exported is None:
            found = await _one_operation(system, what)
            sources = {found.service: await actions.removed(system, found)}
        else:
            sources = {name: editing.letters_in(file, name) for name in names(None) if name in exported}
        return [tell(*await actions.restore(system, name, letters, who), as_json=as_json) for name, letters in sources.items()]

    leave(on_system(work), as_json=as_json)


@dlq_app.command()
def resume(
    ident: Annotated[str, typer.Argument(metavar="OPERATION", help="Beginning of its id; without: the one there is.")] = "",
    *,
    operator: Operator = "",
    reason: Why = "",
    as_json: AsJson = False,
) -> None:
    """Go on with an operation that was interrupted."""
    who = author(operator, reason)

    async def work(system: System) -> End:
        found = await actions.interrupted(system, ident)
        if not found:
            raise ComplaintError("no operation is to be resumed; `starlift dlq audit` lists all", DeadLetterExit.NOTHING)
        if len(found) > 1:
            raise NoSuchOperationError(f"several can be resumed, say which: {', '.join(one.id for one in found)}")
        return await watched(system, found[0], resumed_by=who, as_json=as_json)

    leave([on_system(work)], as_json=as_json)


@dlq_app.command()
def audit(
    ident: Annotated[str, typer.Argument(metavar="OPERATION", help="Beginning of an id: show every letter of it.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Show who did what to dead letters, when and why."""

    async def work(system: System) -> None:
        found = await actions.audit(system, ident)
        if not found:
            raise ComplaintError("there is no such operation", DeadLetterExit.NOTHING)
        journal = await actions.journal_of(system, found[0][0]) if ident and len(found) == 1 else None
        if as_json:
            lines = [] if journal is None else render.journal_as_json(journal)
            for document in (*(render.operation_as_json(*pair) for pair in found), *lines):
                typer.echo(render.json_line(document))
            return
        render.show_operations(people, found)
        if journal is not None:
            render.show_journal(people, journal)

    on_system(work)


async def _one_operation(system: System, beginning: str) -> Operation:
    found = await actions.audit(system, beginning)
    if len(found) != 1:
        raise NoSuchOperationError(
            f"there is no file '{beginning}', and {len(found)} operations begin so; `starlift dlq audit` lists them"
        )
    return found[0][0]
