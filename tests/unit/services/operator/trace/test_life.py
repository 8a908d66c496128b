"""The life of a row, put together from the traces of its batches and its quarantine entries."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.messages import BatchLoaded, BatchLoadedData
from contracts.objects import SourceKeys
from contracts.quarantine import Problem
from services.operator.quarantine import Entry
from services.operator.terminal.trace import lines_of
from services.operator.trace.life import AtSource, Life, Piece, StarRow, Tombstone
from services.operator.trace.passage import Traces
from services.operator.trace.reading import read_refusals, refusal_of
from shared import reading
from shared.envelope import opening
from shared.ledger import LoadedEvent
from tests.unit.services.operator.scene import BEGAN, PROCESSED, SOURCE, Scene, ingested

ANNOUNCED = ingested(7)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def piece(seconds: float | None) -> Piece:
    written_at = None if seconds is None else at(seconds)
    return Piece(bucket="b", key="k", rows=None, bytes=1, written_at=written_at, expired=written_at is None)


def traces(landing: tuple[Piece, ...] = (), processed: tuple[Piece, ...] = (), batch: UUID | None = None) -> Traces:
    """The traces of a loaded batch whose manifest has expired; the row was merged after five seconds."""
    batch = batch or ANNOUNCED.data.batch_id
    known = ANNOUNCED.data.model_dump(exclude={"extracts", "hashes", "gone", "answers"})
    data = BatchLoadedData(**{**known, "batch_id": batch}, tables=(), quarantined=0)
    event = BatchLoaded(**{**opening("tests"), "time": at(4.5)}, data=data)
    return Traces(batch, 7, at(5), LoadedEvent(event, at(6)), None, landing, processed)


def life(*runs: int, **known: Any) -> Life:
    rows = [
        StarRow(
            values={"staff_id": "3"},
            version=(),
            run=run,
            batch_id=None,
            loaded_at=BEGAN,
            deleted_at=None,
            current=True,
            inferred=run == 0,
        )
        for run in runs
    ]
    return Life(table="dim_staff", key=(3,), known=bool(runs), computed=False, rows=tuple(rows), **known)


def entry(run: int) -> Entry:
    problem = Problem(column="first_name", reason="is NULL")
    return Entry(table="dim_staff", key=(3,), run=run, index=0, problems=(problem,), source_table="staff", row={})


def test_a_hop_is_timed_from_the_last_hop_with_a_known_time() -> None:
    hops = traces().passage().hops
    assert [(hop.at, hop.seconds) for hop in hops[:4]] == [(BEGAN, None), (None, None), (None, None), (at(4.5), 4.5)]


def test_a_rounded_time_makes_the_seconds_around_it_estimates_that_are_never_negative() -> None:
    hops = traces((piece(2), piece(1)), (piece(1), piece(4))).passage().hops
    assert [(hop.seconds, hop.estimate) for hop in hops] == [
        (None, False), (2, True), (0, True), (3.5, True), (0.5, False), (1, False),
    ]  # fmt: skip


def test_the_first_of_two_objects_belongs_to_the_batch_and_the_last_to_its_replay() -> None:
    objects = (piece(3), piece(2))
    assert traces((), objects).passage().hops[2].at == at(2)
    assert traces((), objects, uuid4()).passage().hops[2].at == at(3)


def test_a_row_with_an_unknown_snapshot_has_no_total() -> None:
    bare = Traces(UUID(int=1), 7, at(5), None, None).passage()
    known = life(7)
    known = known.model_copy(update={"rows": (known.rows[0].model_copy(update={"batch": bare}),)})
    lines = list(lines_of(known))
    assert f"  run 7, batch {UUID(int=1)}" in lines
    assert not any("from the source's snapshot to the warehouse" in line for line in lines)


def test_a_refusal_is_open_until_a_row_of_its_run_or_a_later_one_is_loaded() -> None:
    assert [refusal_of(entry(7), life(*runs)).open for runs in [(), (0,), (6,), (7,), (8, 6)]] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_a_refusal_is_closed_by_a_comparison_that_found_the_row_deleted() -> None:
    found = [refusal_of(entry(7), life(6, tombstone=Tombstone(run=run, found_at=BEGAN))) for run in (6, 7)]
    assert [(one.open, one.gone) for one in found] == [(True, False), (False, True)]
    nowhere = refusal_of(entry(7), life(at_source=AtSource.NOWHERE))
    assert (nowhere.open, nowhere.gone) == (False, True)


async def test_refusals_are_listed_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "AT_ONCE", 2)
    scene = Scene()
    for run in range(1, 6):
        line = {"table": "dim_staff", "source_table": "staff", "key": {"staff_id": 3}, "problems": [], "row": {}}
        body = json.dumps(line).encode()
        await scene.objects.put(PROCESSED, SourceKeys(SOURCE).batch(run, 0).quarantine(sha256(body).hexdigest()), body)
    assert [one.run for one in await read_refusals(scene.system, life())] == [5, 4, 3, 2, 1]
