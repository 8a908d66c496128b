"""A run on fakes: what it writes, announces and stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts.key_hashes import KeyHashes
from contracts.messages import (
    MESSAGE_BYTES_MAXIMUM,
    BatchIngested,
    IngestSource,
    IngestSourceData,
    LookUpKeys,
    LookUpKeysData,
    Role,
    RowsOf,
    Trigger,
    decode,
    encode,
)
from services.ingestion.handler import Dependencies, handle
from services.ingestion.lease import take_lease
from services.ingestion.memory_source import MemorySnapshot, MemorySource
from services.ingestion.plan import Plan, Request
from services.ingestion.source import BatchLimits, OpenSnapshot, Page, TablePart
from shared.envelope import opening
from shared.errors import PermanentError, TransientError
from shared.key_hashes import unpacked
from shared.outcome import Defer, Done
from shared.queue import NO_ATTRIBUTES
from shared.source_store import SourceStore
from shared.testing import FakeObjectStore, FakeQueue, loop_now
from tests.fixtures.applications import CONTRACT, item, maker

pytestmark = pytest.mark.virtual_clock
SOURCE = "shop"
Pages = AsyncGenerator[list[Page], None]


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource(CONTRACT, loop_now)
    with source.transaction() as writes:
        writes.put("maker", maker(1), maker(2))
        writes.put("item", *(item(number, 1 + number % 2) for number in range(1, 6)))
        writes.put("shelf", {"row": 1, "label": "a", "width": 3})
    return source


@pytest.fixture
def deps(source: MemorySource) -> Dependencies:
    store = SourceStore(FakeObjectStore("landing"), SOURCE, "landing", "processed")
    return Dependencies(source, store, FakeQueue("remodelling"), compare_keys_every=0, now=loop_now)


async def run(deps: Dependencies, **wish: Any) -> list[BatchIngested]:
    """The batches that one run announces."""
    outlet = FakeQueue("remodelling")
    data = IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR, **wish)
    assert await handle(IngestSource(**opening("tests"), data=data), replace(deps, remodelling=outlet)) == Done()
    announced = [decode(body) for body in outlet.bodies]
    return [message for message in announced if isinstance(message, BatchIngested)]


async def answer(
    deps: Dependencies, rows: tuple[RowsOf, ...], *, believe_empty: bool = False
) -> tuple[LookUpKeys, list[BatchIngested]]:
    """A question, and the batches of the run that answers it."""
    outlet = FakeQueue("remodelling")
    data = LookUpKeysData(source_name=SOURCE, rows=rows, believe_empty=believe_empty)
    command = LookUpKeys(**opening("tests"), data=data)
    assert await handle(command, replace(deps, remodelling=outlet)) == Done()
    announced = [decode(body) for body in outlet.bodies]
    return command, [message for message in announced if isinstance(message, BatchIngested)]


async def hashes_of(deps: Dependencies, batches: list[BatchIngested]) -> KeyHashes:
    """The hashes that the last batch names."""
    assert batches[-1].data.hashes is not None
    return unpacked(KeyHashes, await deps.store.objects.get(batches[-1].data.hashes))


def rows_by_batch(batches: list[BatchIngested], table: str, role: Role = Role.BASE) -> list[int]:
    return [
        sum(one.object.row_count for one in batch.data.extracts if (one.table, one.role) == (table, role)) for batch in batches
    ]


async def test_the_last_batch_of_a_run_is_marked_and_carries_the_key_hashes(deps: Dependencies) -> None:
    batches = await run(replace(deps, limits=BatchLimits(rows=3)))
    assert [batch.data.index for batch in batches] == list(range(len(batches)))
    assert [batch.data.is_last for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert [batch.data.hashes is not None for batch in batches] == [batch.data.is_last for batch in batches]
    hashes = await hashes_of(deps, batches)
    assert [(table.table, table.counts) for table in hashes.tables] == [("item", (0,)), ("shelf", (0,))]


class Gate(FakeQueue):
    """A queue that opens when it has two messages."""

    def __init__(self) -> None:
        super().__init__("remodelling")
        self.open = asyncio.Event()

    async def send(self, body: str, *, delay: timedelta = timedelta(0), attributes: Mapping[str, str] = NO_ATTRIBUTES) -> str:
        sent = await super().send(body, delay=delay, attributes=attributes)
        if len(self.bodies) == 2:
            self.open.set()
        return sent


@dataclass(frozen=True)
class HeldSource:
    """A source whose pages after the third come when the gate is open."""

    source: MemorySource
    gate: Gate
    join_snapshot: Any = None

    @asynccontextmanager
    async def open_snapshot(self, request: Request | None = None) -> AsyncIterator[OpenSnapshot]:
        async with self.source.open_snapshot(request) as snapshot:
            yield HeldSnapshot(snapshot.contract, snapshot.facts, snapshot.rows, self.gate)


@dataclass(frozen=True)
class HeldSnapshot(MemorySnapshot):
    gate: Gate

    async def pages(self, plan: Plan, limits: BatchLimits, part: TablePart | None = None) -> AsyncGenerator[list[Page], None]:
        read = 0
        async for pages in MemorySnapshot.pages(self, plan, limits, part):
            if read == 3:
                await self.gate.open.wait()
            yield pages
            read += 1


async def test_a_batch_is_announced_before_the_rest_is_read(deps: Dependencies, source: MemorySource) -> None:
    gate = Gate()
    held = replace(deps, source=HeldSource(source, gate), limits=BatchLimits(rows=3), remodelling=gate)
    command = IngestSource(**opening("tests"), data=IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR))
    assert await handle(command, held) == Done()
    assert len(gate.bodies) > 2


async def test_a_write_that_fails_ends_the_run_with_its_own_error(deps: Dependencies) -> None:
    objects = deps.store.objects
    assert isinstance(objects, FakeObjectStore)
    objects.faults.add("put", TransientError("s3: try again"))
    with pytest.raises(TransientError, match="s3: try again"):
        await run(replace(deps, limits=BatchLimits(rows=3)))


async def test_batches_respect_the_row_limit_unless_one_row_and_its_partner_exceed_it(deps: Dependencies) -> None:
    batches = await run(replace(deps, limits=BatchLimits(rows=3)))
    assert sum(rows_by_batch(batches, "item")) == 5
    pairs = await run(replace(deps, limits=BatchLimits(rows=1)), mode="full")
    items = [count for count in rows_by_batch(pairs, "item") if count]
    assert items == [1] * 5
    assert [count for count in rows_by_batch(pairs, "maker", Role.PARTNER) if count] == [1] * 5


async def test_the_rows_the_hashes_and_the_answer_of_a_run_come_from_one_snapshot(
    deps: Dependencies, source: MemorySource
) -> None:
    await run(deps)
    assert source.opened == 1
    await run(deps, compare_keys=True)
    assert source.opened == 2
    await answer(deps, (RowsOf(table="item", keys=((1,),)),))
    assert source.opened == 3


async def test_an_empty_table_is_reported_once_and_compared_only_with_believe_empty(
    deps: Dependencies, source: MemorySource
) -> None:
    await run(deps)
    with source.transaction() as writes:
        writes.delete("shelf", (1, "a"))
    with capture_logs() as logs:
        unbelieved = await hashes_of(deps, await run(deps, compare_keys=True))
        await run(deps, compare_keys=True)
    assert [(table.table, sum(table.counts), table.believe_empty) for table in unbelieved.tables] == [("item", 5, False)]
    assert [entry["table"] for entry in logs if entry["event"] == "empty_table_not_compared"] == ["shelf"]
    believed = await hashes_of(deps, await run(deps, compare_keys=True, believe_empty=True))
    assert {table.table: (sum(table.counts), table.believe_empty) for table in believed.tables} == {
        "item": (5, True),
        "shelf": (0, True),
        "part": (0, True),  # it never had a row
    }


async def test_a_run_that_only_compares_keys_has_one_batch(deps: Dependencies) -> None:
    await run(deps)
    assert await run(deps) == []
    (batch,) = await run(deps, compare_keys=True)
    assert (batch.data.extracts, batch.data.is_last, batch.data.hashes is None) == ((), True, False)


async def test_an_answer_lists_deleted_rows_in_batches_without_rows(deps: Dependencies, source: MemorySource) -> None:
    await run(deps)
    with source.transaction() as writes:
        writes.delete("item", (1,), (2,), (3,))
        writes.put("item", item(4, 1, "changed"))
    asked = RowsOf(table="item", keys=((1,), (2,), (3,), (4,), (99,))), RowsOf(table="shelf", keys=((1, "a"), (1, "b")))
    command, batches = await answer(replace(deps, limits=BatchLimits(gone_keys=3)), asked)
    assert [bool(batch.data.extracts) for batch in batches] == [True, False, False, False]
    assert [batch.data.gone for batch in batches] == [
        (),
        (RowsOf(table="item", keys=((1,), (2,), (3,))),),
        (RowsOf(table="item", keys=((99,),)),),
        (RowsOf(table="shelf", keys=((1, "b"),)),),
    ]
    assert [batch.data.answers for batch in batches] == [None, None, None, command.id]
    assert [batch.data.is_last for batch in batches] == [False, False, False, True]
    manifest = await deps.store.find_manifest(batches[0].data.run)
    assert manifest is not None
    assert (manifest.trigger, manifest.requested_by) == (None, command.id)
    assert await run(deps) == []  # the answer was a run like any other, and left its position


async def test_an_answer_is_split_before_its_messages_exceed_the_limit_of_sqs(deps: Dependencies) -> None:
    """Only a question that was made by hand has so many keys: loading cuts its own at 256 KB. A key is never cut."""
    await run(deps)
    keys = tuple((number, "é" * 1_300) for number in range(1_000))
    longest = (0, "\u0001" * 50_000)  # 300 KB as JSON
    _, batches = await answer(deps, (RowsOf(table="shelf", keys=(*keys, longest, (1, "b"))),))
    assert [key for batch in batches for rows in batch.data.gone for key in rows.keys] == [*keys, longest, (1, "b")]
    sizes = [len(encode(batch).encode()) for batch in batches]
    assert max(sizes) < MESSAGE_BYTES_MAXIMUM // 2
    assert sum(sizes) / len(sizes) > MESSAGE_BYTES_MAXIMUM // 16


async def test_a_question_is_answered_even_if_no_row_was_deleted(deps: Dependencies) -> None:
    await run(deps)
    command, (batch,) = await answer(deps, (RowsOf(table="item", keys=((1,),)),))
    assert (batch.data.gone, batch.data.answers, batch.data.is_last) == ((), command.id, True)


async def test_no_row_of_an_empty_table_counts_as_deleted_without_believe_empty(
    deps: Dependencies, source: MemorySource
) -> None:
    await run(deps)
    with source.transaction() as writes:
        writes.delete("shelf", (1, "a"))
    asked = (RowsOf(table="shelf", keys=((1, "a"),)),)
    _, (unbelieved,) = await answer(deps, asked)
    assert unbelieved.data.gone == ()
    _, (believed,) = await answer(deps, asked, believe_empty=True)
    assert believed.data.gone == asked


async def test_an_answer_compares_no_keys_even_if_due_or_a_table_is_read_in_full(
    deps: Dependencies, source: MemorySource
) -> None:
    """Otherwise questions about a table whose transaction ids may not be read would never end."""
    await run(deps)
    source.tables["item"] = replace(source.tables["item"], has_row_versions=False)
    often = replace(deps, compare_keys_every=1)
    _, batches = await answer(often, (RowsOf(table="item", keys=((1,),)),))
    assert rows_by_batch(batches, "item") == [5, 0]
    assert not any(batch.data.hashes for batch in batches)
    assert (await run(often))[-1].data.hashes is not None


async def test_an_answer_waits_for_the_current_run(deps: Dependencies) -> None:
    await take_lease(deps.store, deps.now, deps.new_token)
    command = LookUpKeys(**opening("tests"), data=LookUpKeysData(source_name=SOURCE, rows=()))
    assert isinstance(await handle(command, deps), Defer)


async def test_a_question_about_a_table_that_the_contract_lacks_is_refused(deps: Dependencies) -> None:
    with pytest.raises(PermanentError, match="'basket' with keys of that length is not in contract"):
        await answer(deps, (RowsOf(table="basket", keys=((1,),)),))


async def test_the_manifest_lists_the_announced_batches_and_is_written_before_the_state(deps: Dependencies) -> None:
    batches = await run(deps)
    number = batches[0].data.run
    manifest = await deps.store.find_manifest(number)
    assert manifest is not None
    assert list(manifest.batches) == batches
    assert (manifest.is_full, manifest.trigger) == (True, Trigger.OPERATOR)
    assert isinstance(deps.store.objects, FakeObjectStore)
    deps.store.objects.faults.add("put", TransientError("S3 is busy"))
    with pytest.raises(TransientError, match="S3 is busy"):
        await run(deps)
    assert await deps.store.manifest_runs(after=0) == [number]
    checkpoint = await deps.store.find_checkpoint()
    assert checkpoint is not None
    assert checkpoint.run == number
