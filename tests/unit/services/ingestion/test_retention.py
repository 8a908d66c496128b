"""Extracts of data sets get the tag that lets them expire once a later whole snapshot has replaced them, and not before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.column_types import INTEGER, TEXT
from contracts.datasets import Contents, Dataset, Format, RecordForm
from contracts.messages import BatchIngested
from contracts.state import DatasetState
from contracts.tables import SourceColumn, SourceTable
from services.ingestion.retention import tag_superseded
from shared.source_store import SourceStore
from shared.testing import FakeObjectStore
from tests.fixtures.delivered import deliver, frame_of_rows

RATE = SourceTable(
    "rate",
    ("currency",),
    (SourceColumn("currency", TEXT), SourceColumn("rate", INTEGER)),
    dataset=Dataset(RecordForm(Format.CSV), Contents.INCREMENT),
)
BUDGET = replace(RATE, name="budget")
ROWS = frame_of_rows(RATE, ("EUR", 1))


@pytest.fixture
def objects() -> FakeObjectStore:
    return FakeObjectStore("landing", "processed")


@pytest.fixture
def store(objects: FakeObjectStore) -> SourceStore:
    return SourceStore(objects, "plans", "landing", "processed")


def key_of(batches: list[BatchIngested]) -> str:
    return batches[0].data.extracts[0].object.key


def tagged(objects: FakeObjectStore) -> set[str]:
    assert all(tags == {"starlift": "superseded"} for tags in objects.tags.values())
    return {key for _, key in objects.tags}


async def test_what_a_whole_snapshot_replaces_is_tagged_and_nothing_else(objects: FakeObjectStore, store: SourceStore) -> None:
    old = [await deliver(store, RATE, run, ROWS) for run in (1, 2)]
    await deliver(store, BUDGET, 3, ROWS)
    await deliver(store, RATE, 4, ROWS, whole_run=4)
    await tag_superseded(store, {"rate": DatasetState(), "budget": DatasetState()})
    assert tagged(objects) == set()
    await tag_superseded(store, {"rate": DatasetState(whole_run=4), "budget": DatasetState()})
    assert tagged(objects) == set(map(key_of, old))


async def test_what_is_known_to_be_tagged_is_not_read_again(objects: FakeObjectStore, store: SourceStore) -> None:
    await deliver(store, RATE, 1, ROWS)
    later = await deliver(store, RATE, 2, ROWS)
    await tag_superseded(store, {"rate": DatasetState(whole_run=3, tagged_run=2)})
    assert tagged(objects) == {key_of(later)}
    objects.tags.clear()
    await tag_superseded(store, {"rate": DatasetState(whole_run=3, tagged_run=3)})
    assert tagged(objects) == set()


async def test_a_bundle_is_kept_as_long_as_one_of_its_data_sets_needs_it(objects: FakeObjectStore, store: SourceStore) -> None:
    (batch,) = await deliver(store, RATE, 1, ROWS, as_bundle=True)
    both = (batch.data.extracts[0], batch.data.extracts[0].model_copy(update={"table": "budget"}))
    data = batch.data.model_copy(update={"extracts": both, "hashes": both[0].object.model_copy(update={"key": "hashes"})})
    manifest = await store.read_manifest(1)
    changed = manifest.model_copy(update={"batches": (batch.model_copy(update={"data": data}),)})
    await store.write_manifest(changed)
    objects.buckets["landing"]["hashes"] = b""
    await tag_superseded(store, {"rate": DatasetState(whole_run=3), "budget": DatasetState()})
    assert tagged(objects) == set()
    await tag_superseded(store, {"rate": DatasetState(whole_run=3, tagged_run=3), "budget": DatasetState(whole_run=4)})
    assert tagged(objects) == {both[0].object.key, "hashes"}
