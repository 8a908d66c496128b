"""A source whose one large table is read in chunks, and what a run of it announces; on fakes."""

from __future__ import annotations

from random import Random
from typing import Any

from contracts.messages import BatchIngested, IngestSource, IngestSourceData, Role, Trigger, decode
from services.ingestion.handler import Dependencies
from services.ingestion.memory_source import MemorySource
from services.ingestion.source import BatchLimits
from shared.envelope import opening
from shared.source_store import SourceStore
from shared.testing import FakeObjectStore, FakeQueue, loop_now
from tests.fixtures.applications import CONTRACT, item, maker

SOURCE = "shop"
ITEMS = 47


def filled_source() -> MemorySource:
    source = MemorySource(CONTRACT, loop_now)
    with source.transaction() as writes:
        writes.put("maker", maker(1), maker(2))
        writes.put("item", *(item(number, 1 + number % 2) for number in range(1, ITEMS + 1)))
        writes.put("shelf", {"row": 1, "label": "a", "width": 3})
    return source


def dependencies(source: MemorySource, store: SourceStore | None = None) -> Dependencies:
    """A task of ingestion, with queues of its own; in an installation that is new unless it has a `store`."""
    store = store or SourceStore(FakeObjectStore("landing"), SOURCE, "landing", "processed")
    limits, chunks = BatchLimits(rows=4), FakeQueue("chunks", order=Random(7))  # noqa: S311 - an order
    return Dependencies(source, store, FakeQueue("remodelling"), limits, compare_keys_every=0, chunks=chunks, now=loop_now)


def request(**wish: Any) -> IngestSource:
    return IngestSource(**opening("tests"), data=IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR, **wish))


def announced(deps: Dependencies) -> list[BatchIngested]:
    assert isinstance(deps.remodelling, FakeQueue)
    found = [decode(body) for body in deps.remodelling.bodies]
    return [message for message in found if isinstance(message, BatchIngested)]


def rows(batches: list[BatchIngested], table: str) -> int:
    extracts = (extract for batch in batches for extract in batch.data.extracts)
    return sum(one.object.row_count for one in extracts if (one.table, one.role) == (table, Role.BASE))
