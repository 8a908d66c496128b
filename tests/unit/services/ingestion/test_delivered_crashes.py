"""Commands to a source of files that come late, more than once, or to a run that dies."""

from __future__ import annotations

from dataclasses import replace
from errno import ENOSPC
from typing import Any

import pytest

from contracts.doorbells import understood
from contracts.files import Outcome
from contracts.messages import Mode, Trigger
from shared.errors import DependencyDownError, TransientError
from shared.testing import AnswerLost, Partial, connection_reset
from tests.fixtures.delivered_contract import PLANS
from tests.unit.services.ingestion.delivered_scene import KEY_B, KEY_C, LANDING, A, B, C, DeliveredScene, budget, product


async def test_a_scheduled_command_is_answered_by_a_later_look_at_all_that_waits() -> None:
    scene = DeliveredScene()
    early = scene.command(Trigger.SCHEDULE)
    await scene.ingest()
    listed = scene.objects.listings
    await scene.handle(early)
    assert scene.objects.listings == listed


async def test_a_command_whose_run_died_between_two_files_is_followed_to_its_end() -> None:
    """Its first run has ended after the command was sent, and does not answer it: a file is left."""
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget(A, B))
    await scene.put("budget/b.csv", budget(B, C))
    command = scene.command(Trigger.SCHEDULE)
    scene.objects.faults.add("download", Partial(), connection_reset())
    with pytest.raises(DependencyDownError):
        await scene.handle(command)
    assert len(await scene.handle(command)) == 1
    assert await scene.truth() == {KEY_B: 700, KEY_C: 100}


async def test_a_lost_state_does_not_bring_back_what_a_whole_snapshot_has_replaced() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget(A, B))
    await scene.put("product/a.jsonl", product(1, "one", 1))
    await scene.ingest()
    await scene.put("budget/b.csv", budget(B, C))
    await scene.put("product/snapshot/b.jsonl", product(2, "two", 1))
    await scene.ingest()
    del scene.objects.buckets[LANDING][scene.store.keys.state]
    await scene.put("product/c.jsonl", product(3, "three", 1))
    assert len(await scene.ingest()) == 1, "what became of files is recorded elsewhere"
    assert await scene.truth() == {KEY_B: 700, KEY_C: 100}
    assert await scene.truth("product") == {(2,): "two", (3,): "three"}


async def test_a_data_set_that_comes_back_into_the_contract_is_as_it_was() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget(A, B))
    await scene.put("budget/b.csv", budget(B, C))
    await scene.put("product/a.jsonl", product(1, "one", 1))
    await scene.ingest()
    star = tuple(table for table in PLANS.warehouse_tables if table.name != "fact_budget")
    tables = tuple(table for table in PLANS.source_tables if table.name == "product")
    scene.contract = replace(PLANS, source_tables=tables, warehouse_tables=star)
    await scene.ingest()
    scene.contract = PLANS
    await scene.ingest()
    assert await scene.truth() == {KEY_B: 700, KEY_C: 100}


async def test_a_full_disk_is_reported_in_a_sentence_and_the_file_is_taken_later() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget(A))
    scene.objects.faults.add("download", OSError(ENOSPC, "No space left on device"))
    with pytest.raises(TransientError, match=r"^the disk below .* is full: dropzone/budget/a.csv needs room"):
        await scene.ingest()
    assert len(await scene.ingest()) == 1


async def test_a_doorbell_is_a_reason_to_look() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget(B, C))
    doorbell = understood('{"Records": [{"eventSource": "aws:s3", "eventTime": "2020-01-01T00:00:00.000Z"}]}')
    assert len(await scene.handle(doorbell)) == 1
    listed = scene.objects.listings
    await scene.handle(doorbell)
    assert scene.objects.listings == listed, "a run has looked since it rang"


async def test_a_full_run_that_died_before_its_state_does_not_outrank_what_was_delivered_since() -> None:
    """Its manifest is there, and its images count as those of a whole snapshot."""
    scene = DeliveredScene()
    await scene.put("product/a.jsonl", product(1, "one", 1))
    await scene.ingest()
    full = scene.command(Trigger.OPERATOR, mode=Mode.FULL)
    scene.objects.faults.add("replace", Partial(), connection_reset())  # the first is the lease
    with pytest.raises(DependencyDownError):
        await scene.handle(full)
    await scene.put("product/b.jsonl", product(1, "newer", 2))
    await scene.ingest(Trigger.SCHEDULE)
    assert await scene.truth("product") == {(1,): "newer"}
    await scene.handle(full)
    assert await scene.truth("product") == {(1,): "newer"}


@pytest.mark.parametrize("method", ["put", "replace", "send", "download", "versions"])
@pytest.mark.parametrize("lost", [AnswerLost, connection_reset], ids=["after", "before"])
async def test_a_crash_at_any_effect_loses_and_doubles_nothing(method: str, lost: Any) -> None:
    """The n-th call of a method fails, before or after its effect, for every n; the message is then handled again."""
    for number in range(40):
        scene = DeliveredScene()
        await scene.put("budget/a.csv", budget(A, B))
        await scene.put("budget/b.csv", budget(B, C))
        await scene.put("product/a.jsonl", product(1, "one", 2))
        await scene.put("product/b.jsonl", product(1, "late", 1))
        faults = (scene.queue if method == "send" else scene.objects).faults
        faults.add(method, *[Partial()] * number, lost())
        command = scene.command(Trigger.SCHEDULE)
        try:
            await scene.handle(command)
            has_failed = False
        except DependencyDownError:
            has_failed = True
            await scene.handle(command)
        faults.clear()
        assert await scene.truth() == {KEY_B: 700, KEY_C: 100}, (method, number)
        assert await scene.truth("product") == {(1,): "one"}, (method, number)
        found = [*await scene.records(), *await scene.records("product")]
        assert sorted(record.key.rpartition("/")[2] for record in found) == ["a.csv", "a.jsonl", "b.csv", "b.jsonl"]
        assert Outcome.REFUSED not in {record.outcome for record in found}
        assert await scene.ingest(Trigger.SCHEDULE) == [], (method, number)
        if not has_failed:
            return
    raise AssertionError(f"{method} is called more than 40 times")
