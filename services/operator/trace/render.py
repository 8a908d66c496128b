"""The life of a row, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from contracts.tables import Fact
from services.operator.proof.quarantine import Entry
from services.operator.render import counted, printable
from services.operator.trace.life import AtSource, Life
from services.operator.trace.passage import Hop, Passage, Piece
from services.operator.trace.star_rows import StarRow

AT_SOURCE = {
    AtSource.NOWHERE: "The source has no such row.",
    AtSource.WAITING: "The source has it, written since the horizon of the last run: the next run reads it.",
    AtSource.READ: "The source has it and a run has read it; `starlift status` says whether batches are on their way.",
    AtSource.UNKNOWN: "The source can't be reached; whether it has such a row is not known.",
}


def show_life(console: Console, life: Life) -> None:
    """One line for each thing that happened, so that it can be read through a pipe."""
    for line in lines_of(life):
        console.print(Text(line), soft_wrap=True)  # as a Text: a value may look like markup or an emoji


def lines_of(life: Life) -> Iterator[str]:
    """The life in words."""
    name = f"{life.table.name} {', '.join(map(printable, life.key))}"
    yield (
        f"{name}: {counted(len(life.rows), 'row', 'rows')} in the warehouse"
        if life.rows
        else f"{name} is not in the warehouse."
    )
    if life.is_computed:
        yield "The calendar has a row for each date that a fact refers to; the loader computes it, no run reads it."
    for row in life.rows:
        yield ""
        yield from _row_lines(life, row)
    if life.refusals:
        yield ""
        yield from (_refusal_line(life, refusal) for refusal in life.refusals)
    if life.at_source is not None:
        yield AT_SOURCE[life.at_source]


def _row_lines(life: Life, row: StarRow) -> Iterator[str]:
    names = life.table.version if isinstance(life.table, Fact) else ()
    version = " ".join(printable(row.values[name]) for name in names)
    yield ", ".join(part for part in (version, *_marks(life, row)) if part) or "the row"
    yield "  " + ", ".join(f"{name}={'NULL' if value is None else repr(value)}" for name, value in row.values.items())
    if life.is_computed or row.is_inferred:
        return
    if row.deleted_at is not None:
        by = f", which the key comparison of run {life.tombstone.run} found" if life.tombstone else ""
        yield f"  gone at the source by {_clock(row.deleted_at)}{by}"
    passage = None if row.batch_id is None else life.passages.get(row.batch_id)
    if passage is None:
        yield f"  run {row.run}, of no batch: Starlift did not load it"
    else:
        yield from _passage_lines(passage, row)


def _marks(life: Life, row: StarRow) -> Iterator[str]:
    if life.is_computed:
        return
    if row.is_inferred:
        yield "inferred member: a fact refers to it, the row itself has not been loaded"
    elif row.deleted_at is not None:
        yield "deleted"
    elif row.is_current:
        yield "current"


def _passage_lines(passage: Passage, row: StarRow) -> Iterator[str]:
    place = "" if passage.index is None else f" {passage.index}"
    if passage.is_replay:
        yield "  sent again later under another batch id: a replay of the quarantine"
    yield f"  run {passage.run}, batch{place} {passage.batch_id}" + (f", trace {passage.trace_id}" if passage.trace_id else "")
    if passage.manifest is not None:
        kind = "a full run" if passage.manifest.is_full else "a run"
        yield f"  asked for by command {passage.manifest.requested_by}: {kind}, read by {_clock(passage.manifest.completed_at)}"
    else:
        yield "  no manifest: it has expired, or the run did not complete; who asked for it is not known"
    if passage.loaded is None:
        yield "  the ledger does not have the batch: something else wrote this row, or removed that one"
    hops = passage.hops(row.loaded_at)
    for hop in hops:
        yield _hop_line(hop)
        yield from (f"      {line}" for line in _details(passage, hop))
    if hops[0].at and hops[-1].at:
        yield f"  {(hops[-1].at - hops[0].at).total_seconds():.3f} s from the source's snapshot to the warehouse"


def _hop_line(hop: Hop) -> str:
    at = "time not known" if hop.at is None else _clock(hop.at, "seconds" if hop.is_rounded else "microseconds")
    waited = "" if hop.seconds is None else f"about {hop.seconds:.0f} s" if hop.is_estimate else f"{hop.seconds:+.3f} s"
    message = f", message {hop.message}" if hop.message else ""
    return f"  {at:30} {waited:>11}  {hop.name}{message}"


def _details(passage: Passage, hop: Hop) -> Iterator[str]:
    match hop.name:
        case "source snapshot" if passage.snapshot is not None:
            yield f"horizon {passage.snapshot.horizon}, WAL position {passage.snapshot.wal_position}"
        case "batch ingested":
            yield from _piece_lines(passage.landing)
        case "batch remodelled":
            yield from _piece_lines(passage.processed)
        case _:
            return


def _piece_lines(pieces: tuple[Piece, ...]) -> Iterator[str]:
    for piece in pieces:
        rows = "" if piece.row_count is None else f"{counted(piece.row_count, 'row', 'rows')}, "
        yield f"{piece.bucket}/{piece.key} ({rows}{piece.byte_count:,} bytes)" + ("" if piece.is_there else ": expired")
    if not pieces:
        yield "its objects have expired"


def _refusal_line(life: Life, refusal: Entry) -> str:
    reasons = "; ".join(f"{column} {reason}".strip() for column, reason in refusal.problems)
    brought = "the source has it no longer" if life.is_gone_since(refusal) else "a later image of it is loaded"
    state = "still missing" if life.is_open(refusal) else brought
    return f"quarantine: run {refusal.run} refused it: {printable(reasons)} ({state})"


def _clock(moment: datetime, precision: str = "seconds") -> str:
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(' ', precision)} UTC"


def life_as_json(life: Life) -> dict[str, Any]:
    """For scripts: names are stable, times ISO 8601, values in their canonical text."""
    return {
        "table": life.table.name,
        "key": list(life.key),
        "known": life.is_known,
        "computed": life.is_computed,
        "rows": [_row_as_json(life, row) for row in life.rows],
        "quarantine": [
            {
                "run": refusal.run,
                "open": life.is_open(refusal),
                "batch_index": refusal.index,
                "problems": [{"column": column, "reason": reason} for column, reason in refusal.problems],
                "row": dict(refusal.row),
            }
            for refusal in life.refusals
        ],
        "tombstone": {"run": life.tombstone.run, "found_at": life.tombstone.found_at.isoformat()} if life.tombstone else None,
        "at_source": life.at_source.value if life.at_source else None,
    }


def _row_as_json(life: Life, row: StarRow) -> dict[str, Any]:
    passage = None if row.batch_id is None else life.passages.get(row.batch_id)
    return {
        "values": dict(row.values),
        "current": row.is_current,
        "inferred": row.is_inferred and not life.is_computed,
        "deleted_at": row.deleted_at.isoformat() if row.deleted_at else None,
        "run": row.run,
        "loaded_at": row.loaded_at.isoformat(),
        "batch": None if passage is None else _passage_as_json(passage, row),
    }


def _passage_as_json(passage: Passage, row: StarRow) -> dict[str, Any]:
    manifest, snapshot = passage.manifest, passage.snapshot
    return {
        "id": str(passage.batch_id),
        "index": passage.index,
        "trace_id": passage.trace_id,
        "in_ledger": passage.loaded is not None,
        "asked_by": str(manifest.requested_by) if manifest else None,
        "full": manifest.is_full if manifest else None,
        "run_completed_at": manifest.completed_at.isoformat() if manifest else None,
        "snapshot": snapshot.model_dump(mode="json") if snapshot else None,
        "landing": [_piece_as_json(piece) for piece in passage.landing],
        "processed": [_piece_as_json(piece) for piece in passage.processed],
        "hops": [
            {
                "name": hop.name,
                "at": hop.at.isoformat() if hop.at else None,
                "to_the_second": hop.is_rounded,
                "seconds": hop.seconds,
                "estimate": hop.is_estimate,
                "message": str(hop.message) if hop.message else None,
            }
            for hop in passage.hops(row.loaded_at)
        ],
    }


def _piece_as_json(piece: Piece) -> dict[str, Any]:
    return {
        "bucket": piece.bucket,
        "key": piece.key,
        "rows": piece.row_count,
        "bytes": piece.byte_count,
        "expired": not piece.is_there,
    }
