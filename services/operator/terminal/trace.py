"""`starlift trace`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from services.operator.terminal.harness import ExitCode
from services.operator.terminal.session import AsJson, with_system
from services.operator.trace.life import AtSource, Hop, Life, Passage, Piece, Refusal, StarRow
from services.operator.trace.reading import read_life
from services.operator.wording import clock, counted, printable

AT_SOURCE = {
    AtSource.NOWHERE: "The source has no such row.",
    AtSource.REJECTED: "The source has it, and the table's filter (`where`) rejects it.",
    AtSource.WAITING: "The source has it, written since the horizon of the last run; the next run reads it.",
    AtSource.READ: "The source has it and a run has read it; `starlift status` shows whether batches are on their way.",
    AtSource.UNKNOWN: "The source can't be reached, so it is unknown whether it has such a row.",
}

app = typer.Typer()


# A key may be a negative number, which looks like an option.
@app.command(context_settings={"ignore_unknown_options": True})
def trace(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of the warehouse.")],
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="The row's key, a value for each of its columns.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show the history of a row: runs, messages, objects and times. Exit code 4 if it is not in the warehouse."""
    life = with_system(lambda system: read_life(system, table, key))
    typer.echo(life.model_dump_json(indent=2) if as_json else "\n".join(lines_of(life)))
    if not life.known:
        raise typer.Exit(ExitCode.NOT_LOADED)


def lines_of(life: Life) -> Iterator[str]:
    """The life in words: one line for each thing that happened, so that it can be read through a pipe."""
    name = f"{life.table} {', '.join(map(printable, life.key))}"
    yield (
        f"{name}: {counted(len(life.rows), 'row', 'rows')} in the warehouse"
        if life.rows
        else f"{name} is not in the warehouse."
    )
    if life.computed:
        yield "The calendar has a row for each date that a fact refers to; the loader computes it, no run reads it."
    for row in life.rows:
        yield ""
        yield from _row_lines(life, row)
    if life.quarantine:
        yield ""
        yield from map(_refusal_line, life.quarantine)
    if life.at_source is not None:
        yield AT_SOURCE[life.at_source]


def _row_lines(life: Life, row: StarRow) -> Iterator[str]:
    mark = ""
    if row.inferred:
        mark = "inferred member: a fact refers to it, the row itself has not been loaded"
    elif not life.computed:
        mark = "deleted" if row.deleted_at else "current" if row.current else ""
    yield ", ".join(part for part in (" ".join(map(printable, row.version)), mark) if part) or "the row"
    yield "  " + ", ".join(f"{name}={'NULL' if value is None else repr(value)}" for name, value in row.values.items())
    if life.computed or row.inferred:
        return
    if row.deleted_at is not None:
        by = f", as the look-up of run {life.tombstone.run} found" if life.tombstone else ""
        yield f"  gone at the source by {clock(row.deleted_at)}{by}"
    if row.batch is None:
        yield f"  run {row.run}, of no batch: Starlift did not load it"
    else:
        yield from _passage_lines(row.batch)


def _passage_lines(batch: Passage) -> Iterator[str]:
    place = "" if batch.index is None else f" {batch.index}"
    if batch.id != batch.first_id:
        yield "  sent again later under another batch id: a replay of the quarantine"
    yield f"  run {batch.run}, batch{place} {batch.id}" + (f", trace {batch.trace_id}" if batch.trace_id else "")
    if batch.run_completed_at is not None:
        kind = "a full run" if batch.full else "a run"
        yield f"  asked for by command {batch.asked_by}: {kind}, read by {clock(batch.run_completed_at)}"
    else:
        yield "  no manifest: it has expired, or the run did not complete; who asked for it is not known"
    if not batch.in_ledger:
        yield "  the ledger does not have the batch: something else wrote this row, or removed the batch"
    for hop in batch.hops:
        yield _hop_line(hop)
        yield from (f"      {line}" for line in _details(batch, hop))
    first, last = batch.hops[0], batch.hops[-1]
    if first.at and last.at:
        yield f"  {(last.at - first.at).total_seconds():.3f} s from the source's snapshot to the warehouse"


def _hop_line(hop: Hop) -> str:
    at = "time not known" if hop.at is None else clock(hop.at, "seconds" if hop.to_the_second else "microseconds")
    waited = "" if hop.seconds is None else f"about {hop.seconds:.0f} s" if hop.estimate else f"{hop.seconds:+.3f} s"
    message = f", message {hop.message}" if hop.message else ""
    return f"  {at:30} {waited:>11}  {hop.name}{message}"


def _details(batch: Passage, hop: Hop) -> Iterator[str]:
    match hop.name:
        case "source snapshot" if batch.snapshot is not None and batch.snapshot.horizon != batch.run:  # not of a data set
            yield f"horizon {batch.snapshot.horizon}, WAL position {batch.snapshot.wal_position}"
        case "batch ingested":
            yield from _piece_lines(batch.landing)
        case "batch remodelled":
            yield from _piece_lines(batch.processed)
        case _:
            return


def _piece_lines(pieces: tuple[Piece, ...]) -> Iterator[str]:
    for piece in pieces:
        rows = "" if piece.rows is None else f"{counted(piece.rows, 'row', 'rows')}, "
        yield f"{piece.bucket}/{piece.key} ({rows}{piece.bytes:,} bytes)" + (": expired" if piece.expired else "")
    if not pieces:
        yield "its objects have expired"


def _refusal_line(refusal: Refusal) -> str:
    reasons = "; ".join(f"{problem.column} {problem.reason}".strip() for problem in refusal.problems)
    brought = "the source no longer has it" if refusal.gone else "a later image of it is loaded"
    return f"quarantine: run {refusal.run} refused it: {printable(reasons)} ({'still missing' if refusal.open else brought})"
