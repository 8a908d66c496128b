"""The truth of a data set, read from what deliveries have left in the landing bucket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from contracts.column_types import BIGINT, DATE, INTEGER, TEXT, numeric
from contracts.contract import Contract
from contracts.datasets import Contents, Dataset, Format, RecordForm
from contracts.origins import FromSource
from contracts.state import Checkpoint, DatasetState, SourceIdentity
from contracts.tables import Column, Dimension, SourceColumn, SourceTable
from shared.errors import PermanentError
from shared.landed import Truth, read_as, truth_of
from shared.object_store import ObjectDamagedError, ObjectMissingError
from shared.source_keys import Key, keys_of
from shared.source_store import SourceStore
from shared.testing import FakeObjectStore
from tests.fixtures.delivered import AT, announced_batch, deliver, frame_of_rows

RATE = SourceTable(
    "rate",
    ("currency",),
    (SourceColumn("currency", TEXT), SourceColumn("rate", numeric(12, 4), nullable=True), SourceColumn("seq", BIGINT)),
    dataset=Dataset(RecordForm(Format.CSV), Contents.INCREMENT),
)
VERSIONED = replace(RATE, dataset=Dataset(RecordForm(Format.CSV), Contents.INCREMENT, version="seq"))
DAY = replace(RATE, key=("day",), columns=(SourceColumn("day", DATE), SourceColumn("seq", BIGINT)))


def contract(table: SourceTable) -> Contract:
    columns = tuple(Column(one.name, one.type, FromSource(one.name), nullable=one.nullable) for one in table.columns)
    return Contract("rates", "public", "public", (table,), (Dimension("dim_rate", table.key, columns, table.name),))


@pytest.fixture
def store() -> SourceStore:
    return SourceStore(FakeObjectStore("landing", "processed"), "rates", "landing", "processed")


def truth(store: SourceStore, table: SourceTable = RATE, whole_run: int | None = None) -> Truth:
    return Truth(store, contract(table), table, whole_run)


async def current(found: Truth) -> dict[Key, tuple[Any, ...]]:
    """The current rows by key: no key may come twice."""
    rows = dict[Key, tuple[Any, ...]]()
    async for frame in found.current_rows():
        for key, values in zip(keys_of(found.table, frame), _values(found.table, frame), strict=True):
            assert key not in rows
            rows[key] = values
    return rows


def _values(table: SourceTable, frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    names = [column.name for column in table.columns]
    return list(frame[names].astype(object).where(frame[names].notna(), None).itertuples(index=False, name=None))


@pytest.mark.parametrize("as_bundle", [False, True])
async def test_the_newest_row_of_each_key_is_that_of_the_last_run(store: SourceStore, *, as_bundle: bool) -> None:
    first = (frame_of_rows(RATE, ("EUR", 10000, 1), ("USD", 11000, 1)), frame_of_rows(RATE, ("GBP", 8000, 1)))
    await deliver(store, RATE, 1, *first, as_bundle=as_bundle)
    await deliver(store, RATE, 3, frame_of_rows(RATE, ("USD", None, 0)), as_bundle=as_bundle)
    found = truth(store)
    expected = {("EUR",): ("EUR", 10000, 1), ("GBP",): ("GBP", 8000, 1), ("USD",): ("USD", None, 0)}
    assert await current(found) == expected
    assert [landed.run async for landed in found.rows()] == [1, 1, 3]
    some = await found.rows_of([("USD",), ("EUR",), ("CHF",)])
    assert dict(zip(keys_of(RATE, some), _values(RATE, some), strict=True)) == {
        key: expected[key] for key in [("EUR",), ("USD",)]
    }
    assert await found.missing_keys([("CHF",), ("USD",), ("SEK",)]) == (("CHF",), ("SEK",))
    assert not await found.is_empty()


async def test_a_whole_snapshot_whose_run_died_before_the_state_is_newer_than_versions_of_before_it(store: SourceStore) -> None:
    """As for the loaders that its batches were announced to."""
    await deliver(store, VERSIONED, 1, frame_of_rows(VERSIONED, ("EUR", 1, 9)))
    (event,) = await deliver(store, VERSIONED, 2, frame_of_rows(VERSIONED, ("EUR", 2, 5)))
    (extract,) = event.data.extracts
    whole = event.data.model_copy(update={"extracts": (extract.model_copy(update={"whole_run": 2}),)})
    manifest = await store.read_manifest(2)
    await store.write_manifest(manifest.model_copy(update={"batches": (event.model_copy(update={"data": whole}),)}))
    assert await current(truth(store, VERSIONED)) == {("EUR",): ("EUR", 2, 5)}


async def test_one_delivery_may_have_several_versions_of_a_row(store: SourceStore) -> None:
    first = frame_of_rows(VERSIONED, ("EUR", 1, 5), ("EUR", 2, 7), ("EUR", 3, 6))
    await deliver(store, VERSIONED, 1, first, frame_of_rows(VERSIONED, ("USD", 1, 2), ("EUR", 4, 4)))
    assert await current(truth(store, VERSIONED)) == {("EUR",): ("EUR", 2, 7), ("USD",): ("USD", 1, 2)}


async def test_a_version_decides_before_the_run(store: SourceStore) -> None:
    await deliver(store, VERSIONED, 1, frame_of_rows(VERSIONED, ("EUR", 1, 5), ("USD", 1, None), ("GBP", 1, 7)))
    await deliver(store, VERSIONED, 2, frame_of_rows(VERSIONED, ("EUR", 2, 4), ("USD", 2, -3), ("GBP", 2, 7)))
    await deliver(store, VERSIONED, 3, frame_of_rows(VERSIONED, ("USD", 3, None)))
    found = truth(store, VERSIONED)
    expected = {("EUR",): ("EUR", 1, 5), ("USD",): ("USD", 2, -3), ("GBP",): ("GBP", 2, 7)}
    assert await current(found) == expected
    some = await found.rows_of(list(expected))
    assert dict(zip(keys_of(VERSIONED, some), _values(VERSIONED, some), strict=True)) == expected


async def test_a_whole_snapshot_decides_before_the_version(store: SourceStore) -> None:
    await deliver(store, VERSIONED, 1, frame_of_rows(VERSIONED, ("EUR", 1, 9)), whole_run=1)
    await deliver(store, VERSIONED, 2, frame_of_rows(VERSIONED, ("EUR", 2, 5)), whole_run=2)
    await deliver(store, VERSIONED, 3, frame_of_rows(VERSIONED, ("EUR", 3, 4)), whole_run=2)
    # The run that took the second one was killed before its state.
    found = truth(store, VERSIONED, whole_run=1)
    assert await current(found) == {("EUR",): ("EUR", 2, 5)}
    assert _values(VERSIONED, await found.rows_of([("EUR",)])) == [("EUR", 2, 5)]


async def test_the_truth_begins_with_the_newest_whole_snapshot(store: SourceStore) -> None:
    await deliver(store, RATE, 1, frame_of_rows(RATE, ("EUR", 1, 1), ("USD", 1, 1)))
    await deliver(store, RATE, 2, frame_of_rows(RATE, ("EUR", 2, 2)))
    assert await current(truth(store, whole_run=2)) == {("EUR",): ("EUR", 2, 2)}
    assert await truth(store, whole_run=2).missing_keys([("USD",)]) == (("USD",),)


async def test_a_run_that_was_killed_after_its_manifest_counts_and_taking_its_delivery_again_changes_nothing(
    store: SourceStore,
) -> None:
    await deliver(store, RATE, 1, frame_of_rows(RATE, ("EUR", 1, 1)))
    await deliver(store, RATE, 2, frame_of_rows(RATE, ("EUR", 2, 2), ("USD", 2, 2)))  # the state is still that of run 1
    found = truth_of(store, contract(RATE), RATE, checkpoint(1, DatasetState(whole_run=1)))
    killed = await current(found)
    assert killed == {("EUR",): ("EUR", 2, 2), ("USD",): ("USD", 2, 2)}
    await deliver(store, RATE, 3, frame_of_rows(RATE, ("EUR", 2, 2), ("USD", 2, 2)))
    assert await current(found) == killed


async def test_a_run_that_was_killed_before_its_manifest_does_not_count(store: SourceStore) -> None:
    await deliver(store, RATE, 1, frame_of_rows(RATE, ("EUR", 1, 1)))
    await announced_batch(store, RATE, (2, 0, 1), frame_of_rows(RATE, ("USD", 2, 2)))
    assert await current(truth(store)) == {("EUR",): ("EUR", 1, 1)}


async def test_before_the_first_delivery_the_truth_is_empty(store: SourceStore) -> None:
    found = truth_of(store, contract(RATE), RATE, None)
    assert await found.is_empty()
    assert await current(found) == {}
    assert len(await found.rows_of([("EUR",)])) == 0
    assert await found.missing_keys([("EUR",)]) == (("EUR",),)


async def test_keys_that_are_no_numbers_and_texts_are_found_by_their_texts(store: SourceStore) -> None:
    frame = frame_of_rows(DAY, (20000, 1), (20001, 2))
    frame[DAY.key_text] = ['["2024-10-04"]', None]  # the second record has no readable key
    await deliver(store, DAY, 1, frame)
    found = truth(store, DAY)
    assert await current(found) == {("2024-10-04",): (20000, 1)}
    assert await found.missing_keys([("2024-10-04",), ("2024-10-05",)]) == (("2024-10-05",),)


async def test_rows_of_an_earlier_contract_are_null_in_columns_that_it_lacked(store: SourceStore) -> None:
    earlier = replace(RATE, columns=(RATE.column("currency"), SourceColumn("old", INTEGER), RATE.column("seq")))
    await deliver(store, earlier, 1, frame_of_rows(earlier, ("EUR", 7, 1)))
    await deliver(store, earlier, 2, frame_of_rows(earlier, ("USD", 7, 1)), as_bundle=True)
    await deliver(store, RATE, 3, frame_of_rows(RATE, ("GBP", 3, 3)))
    expected = {("EUR",): ("EUR", None, 1), ("USD",): ("USD", None, 1), ("GBP",): ("GBP", 3, 3)}
    assert await current(truth(store)) == expected


@pytest.mark.parametrize(
    ("now", "what"),
    [
        (replace(RATE, columns=(RATE.columns[0], SourceColumn("rate", TEXT), RATE.columns[2])), "the type of 'rate'"),
        (replace(RATE, key=("currency", "seq")), "the key"),
    ],
)
async def test_a_changed_type_or_key_needs_a_whole_snapshot(store: SourceStore, now: SourceTable, what: str) -> None:
    before = checkpoint(1, read_as(RATE, DatasetState(whole_run=1)))
    truth_of(store, contract(RATE), RATE, before)
    with pytest.raises(PermanentError, match=f"has changed {what} of data set 'rate'.*deliver a whole snapshot"):
        truth_of(store, contract(now), now, before)


async def test_a_missing_or_changed_object_is_named(store: SourceStore) -> None:
    with pytest.raises(PermanentError, match=r"landing/rates/manifests/0*4\.json' does not exist.*a whole snapshot of it"):
        await current(truth(store, whole_run=4))
    (event,) = await deliver(store, RATE, 4, frame_of_rows(RATE, ("EUR", 1, 1)))
    key, bucket = event.data.extracts[0].object.key, store.objects.buckets["landing"]  # type: ignore[attr-defined]
    body = bucket.pop(key)
    with pytest.raises(ObjectMissingError, match=key):
        await current(truth(store, whole_run=4))
    bucket[key] = body[:-1] + b"?"
    with pytest.raises(ObjectDamagedError, match=key):
        await truth(store, whole_run=4).missing_keys([("EUR",)])


def checkpoint(run: int, state: DatasetState) -> Checkpoint:
    event = SourceIdentity(system_identifier=1, timeline=1, database_oid=1, statistics_reset="")
    return Checkpoint(
        run=run,
        started_at=AT,
        snapshot={"taken_at": AT, "horizon": 3, "wal_position": "0/0"},
        identity=event,
        contract="",
        tables={},
        datasets={"rate": state},
    )
