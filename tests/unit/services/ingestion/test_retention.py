"""Extracts of data sets get the tag that lets them expire once a later whole snapshot has replaced them, and not before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.column_types import INTEGER, TEXT
from contracts.datasets import Contents, Dataset, Format, RecordForm
from contracts.messages import BatchIngested, Trigger
from contracts.state import DatasetState
from contracts.tables import SourceColumn, SourceTable
from contracts.yaml_text import read_contract
from services.ingestion.retention import tag_superseded
from shared.source_store import SourceStore
from shared.testing import FakeObjectStore
from tests.fixtures.delivered import deliver, frame_of_rows
from tests.fixtures.delivered_contract import TEXT as DOCUMENT
from tests.unit.services.ingestion.delivered_scene import A, B, DeliveredScene, budget

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


async def test_runs_tag_what_an_earlier_one_has_replaced_and_remember_it() -> None:
    scene = DeliveredScene()
    await scene.put("budget/1.csv", budget(A))
    first = await scene.ingest()
    await scene.put("budget/2.csv", budget(B))
    await scene.ingest()
    await scene.ingest()
    assert tagged(scene.objects) == {key_of(first)}  # and not the hashes: the other data set has had no whole snapshot
    state = (await scene.checkpoint()).datasets["budget"]
    assert state.tagged_run == state.whole_run


async def test_a_run_with_which_a_truth_begins_leaves_a_manifest() -> None:
    scene = DeliveredScene()
    await scene.ingest(Trigger.SCHEDULE)
    text = DOCUMENT.replace("      amount:\n", "      amount:\n      note:\n")
    scene = replace(scene, contract=read_contract(text, "wider.yaml").part("plans"))
    await scene.ingest(Trigger.SCHEDULE)
    assert await scene.truth() == {}
    for name, state in (await scene.checkpoint()).datasets.items():
        assert state.whole_run is None or await scene.store.find_manifest(state.whole_run) is not None, name
