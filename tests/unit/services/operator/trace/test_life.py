from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID, uuid4

import pytest

from contracts.messages import BatchLoaded, BatchLoadedData
from contracts.objects import SourceKeys
from contracts.totesys import CONTRACT
from services.operator.proof.quarantine import Entry
from services.operator.trace.life import AtSource, Life
from services.operator.trace.passage import Passage, Piece
from services.operator.trace.refusals import read_refusals
from services.operator.trace.render import life_as_json, lines_of
from services.operator.trace.star_rows import StarRow, parsed_key
from shared import reading
from shared.envelope import opening
from shared.ledger import LoadedEvent, Tombstone
from tests.unit.services.operator.scene import BEGAN, PROCESSED, SOURCE, Scene, ingested

STAFF = CONTRACT.warehouse_table("dim_staff")
ANNOUNCED = ingested(7)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def piece(seconds: float | None) -> Piece:
    return Piece("b", "k", 1, None, None if seconds is None else at(seconds))


def passage(landing: tuple[Piece, ...], processed: tuple[Piece, ...], batch: UUID | None = None) -> Passage:
    """Of a batch that was loaded and whose manifest has expired."""
    batch = batch or ANNOUNCED.data.batch_id
    known = ANNOUNCED.data.model_dump(exclude={"extracts", "keys"})
    data = BatchLoadedData(**{**known, "batch_id": batch}, tables=(), quarantined=0)
    event = BatchLoaded(**{**opening("tests"), "time": at(4.5)}, data=data)
    return Passage(7, batch, LoadedEvent(event, at(6)), None, landing, processed)


def row(run: int = 7, *, batch_id: UUID | None = None, deleted_at: datetime | None = None, is_newest: bool = True) -> StarRow:
    return StarRow({"staff_id": "3"}, run, batch_id, BEGAN, deleted_at, is_newest)


def life(*rows: StarRow, tombstone: Tombstone | None = None) -> Life:
    return Life(STAFF, (3,), rows, {}, (), tombstone, None)


def refusal(run: int) -> Entry:
    return Entry("dim_staff", "staff", (3,), run, 0, (("first_name", "is NULL"),), {})


def test_a_hop_is_timed_from_the_last_one_whose_time_is_known() -> None:
    hops = passage((), ()).hops(at(5))
    assert [(hop.at, hop.seconds) for hop in hops[:4]] == [(BEGAN, None), (None, None), (None, None), (at(4.5), 4.5)]


def test_a_time_that_was_rounded_down_makes_the_seconds_on_both_sides_of_it_an_estimate_and_never_negative() -> None:
    hops = passage((piece(2), piece(1)), (piece(1), piece(4))).hops(at(5))
    assert [(hop.seconds, hop.is_estimate) for hop in hops] == [
        (None, False), (2, True), (0, True), (3.5, True), (0.5, False), (1, False),
    ]  # fmt: skip


def test_of_two_objects_the_batch_has_made_the_first_and_its_replay_the_last() -> None:
    objects = (piece(3), piece(2))
    assert passage((), objects).hops(at(5))[2].at == at(2)
    assert passage((), objects, uuid4()).hops(at(5))[2].at == at(3)


def test_a_row_whose_snapshot_is_not_known_has_no_total() -> None:
    bare = Passage(7, UUID(int=1), None, None, (), ())
    known = replace(life(row(batch_id=UUID(int=1))), passages={UUID(int=1): bare})
    assert not any("from the source's snapshot to the warehouse" in line for line in lines_of(known))


def test_a_refusal_is_open_until_a_row_of_its_run_or_of_a_later_one_is_there() -> None:
    assert [life(*rows).is_open(refusal(7)) for rows in [(), (row(0),), (row(6),), (row(7),), (row(8), row(6))]] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_a_refusal_is_closed_by_a_comparison_that_found_the_row_gone() -> None:
    assert [life(row(6), tombstone=Tombstone(run, BEGAN)).is_open(refusal(7)) for run in (6, 7)] == [True, False]
    assert not replace(life(), at_source=AtSource.NOWHERE).is_open(refusal(7))


def test_what_is_deleted_or_made_up_is_not_current() -> None:
    assert [one.is_current for one in (row(), row(deleted_at=BEGAN), row(is_newest=False))] == [True, False, False]
    day = replace(life(row(0)), table=CONTRACT.warehouse_table("dim_date"))
    assert [life_as_json(one)["rows"][0]["inferred"] for one in (life(row(0)), day)] == [True, False]


async def test_the_refusals_of_every_object_come_the_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "AT_ONCE", 2)
    scene = Scene()
    for run in range(1, 6):
        entry = {"table": "dim_staff", "source_table": "staff", "key": {"staff_id": 3}, "problems": [], "row": {}}
        body = json.dumps(entry).encode()
        await scene.objects.put(PROCESSED, SourceKeys(SOURCE).batch(run, 0).quarantine(sha256(body).hexdigest()), body)
    assert [one.run for one in await read_refusals(scene.system, STAFF, (3,))] == [5, 4, 3, 2, 1]


def test_the_least_number_that_a_key_may_be_is_one() -> None:
    assert parsed_key(STAFF, ["-2147483648"]) == (-2147483648,)
