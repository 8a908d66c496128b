"""Bounds in bytes: rows of any width, partners of any width, values that can't travel at all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import asyncpg
import pandas as pd
import pytest

from contracts.column_types import BYTEA, INTEGER, JSONB, TEXT
from contracts.contract import Contract
from contracts.messages import MESSAGE_BYTES_MAXIMUM, BatchRemodelled, Extract, IngestSourceData, Mode, Role, Trigger
from contracts.objects import BatchKeys, ObjectRef
from contracts.origins import FromLookup, FromSource
from contracts.tables import Column, Dimension, Drift, Lookup, SourceColumn, SourceTable
from services.ingestion.batches import object_count
from services.ingestion.postgres_source import PostgresSource
from services.ingestion.source import BatchLimits
from services.operator.local.totesys.fill import connect, fill
from shared.codecs.codec import MIB, VALUE_BYTES_MAXIMUM
from tests.fixtures.pipeline import PROCESSED, SOURCE, Pipeline, landed_frame

MAKER = SourceTable(
    "maker",
    ("maker_id",),
    (
        SourceColumn("maker_id", INTEGER),
        SourceColumn("town", TEXT, nullable=True),
        SourceColumn("portrait", BYTEA, nullable=True),
    ),
)
DOC = SourceTable(
    "doc",
    ("id",),
    (
        SourceColumn("id", INTEGER),
        SourceColumn("maker_id", INTEGER, nullable=True),
        SourceColumn("body", BYTEA, nullable=True),
        SourceColumn("note", TEXT, nullable=True),
        SourceColumn("tags", JSONB, nullable=True),
    ),
)
DIM_MAKER = Dimension(
    "dim_maker",
    ("maker_id",),
    (Column("maker_id", INTEGER, FromSource("maker_id")), Column("town", TEXT, FromSource("town"), nullable=True)),
    "maker",
)
DIM_DOC = Dimension(
    "dim_doc",
    ("id",),
    (
        Column("id", INTEGER, FromSource("id")),
        Column("body", BYTEA, FromSource("body"), nullable=True),
        Column("note", TEXT, FromSource("note"), nullable=True),
        Column("tags", JSONB, FromSource("tags"), nullable=True),
        Column("town", TEXT, FromLookup("maker", "town"), nullable=True),
    ),
    "doc",
    (Lookup("maker", on=("maker_id",)),),
)
DOCS = Contract("docs", "public", "public", (MAKER, DOC), (DIM_MAKER, DIM_DOC))
SCHEMA = """
CREATE TABLE maker (maker_id int PRIMARY KEY, town text, portrait bytea);
CREATE TABLE doc (id int PRIMARY KEY, maker_id int REFERENCES maker, body bytea, note text, tags jsonb);
"""
BATCH_BYTES = 2_000_000
ROW_BYTES = 2 * 64 * 1024  # as hexadecimal
WIDE_DOCS = "INSERT INTO doc (id, body) SELECT n, decode(repeat(md5(n::text), 4096), 'hex') FROM generate_series(1, 60) AS n"


@pytest.fixture
async def docs(source_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of the application, in empty tables."""
    connection = await connect(source_url)
    await connection.execute(SCHEMA)
    yield connection
    await connection.close()


@pytest.fixture
def narrow(pipeline: Pipeline) -> Pipeline:
    """A pipeline whose batches are of two megabytes."""
    return replace(pipeline, contract=DOCS, limits=BatchLimits(byte_count=BATCH_BYTES))


async def batches_of(pipeline: Pipeline, byte_count: int = BATCH_BYTES) -> list[tuple[Extract, ...]]:
    """The extracts that a first run writes, by batch."""
    announced = await replace(pipeline, limits=BatchLimits(byte_count=byte_count)).ingest(Mode.FULL)
    return [event.data.extracts for event in announced]


async def landed(pipeline: Pipeline, extracts: Sequence[Extract], table: SourceTable, role: Role) -> pd.DataFrame:
    """The rows of one table and role in a batch."""
    wanted = [one for one in extracts if (one.table, one.role) == (table.name, role)]
    frames = [await landed_frame(pipeline.objects, pipeline.contract, one) for one in wanted]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(table.extract_types))


def row_counts(batches: Sequence[Sequence[Extract]], table: str) -> list[int]:
    return [sum(one.object.row_count for one in batch if (one.table, one.role) == (table, Role.BASE)) for batch in batches]


async def test_pages_and_batches_are_split_by_bytes_down_to_single_rows(docs: asyncpg.Connection, narrow: Pipeline) -> None:
    await docs.execute(WIDE_DOCS)  # and the table was never analysed
    counts = row_counts(await batches_of(narrow), "doc")
    assert sum(counts) == 60
    assert max(counts) <= BATCH_BYTES // ROW_BYTES + 1
    counts = row_counts(await batches_of(narrow, 2), "doc")
    assert counts == [1] * 60, "a row that is larger than a batch is one"


@pytest.mark.parametrize("names", [("id", "note"), ("id", "maker_id", "body", "note", "tags")])
async def test_a_page_of_wide_rows_after_narrow_ones_is_bounded_without_warning(
    docs: asyncpg.Connection, narrow: Pipeline, names: Sequence[str]
) -> None:
    """With texts alone, whose bytes are added up together first, or with other wide columns."""
    await docs.execute("INSERT INTO doc (id, note) SELECT -n, 'x' FROM generate_series(1, 20000) AS n")
    await docs.execute(WIDE_DOCS)
    await docs.execute(f"UPDATE doc SET note = repeat('y', {ROW_BYTES // len(names)}) WHERE id > 0")
    await docs.execute("ANALYZE doc")
    table = replace(DOC, columns=tuple(DOC.column(name) for name in names))
    everything = IngestSourceData(source_name=SOURCE, mode=Mode.FULL, trigger=Trigger.OPERATOR)
    async with PostgresSource(
        narrow.source, replace(DOCS, source_tables=(MAKER, table), warehouse_tables=())
    ).open_snapshot() as snapshot:
        plan = snapshot.plan(None, everything, 0)
        pages = [page async for pages in snapshot.pages(plan, narrow.limits) for page in pages]
    assert sum(page.row_count for page in pages if page.table is table) == 20_060
    assert max(page.byte_count for page in pages) < BATCH_BYTES + 4 * ROW_BYTES, "of 7.8 MB"


async def test_partners_are_split_by_bytes_together_with_the_rows_that_need_them(
    docs: asyncpg.Connection, narrow: Pipeline
) -> None:
    await docs.execute(
        "INSERT INTO maker SELECT n, 'town ' || n, decode(repeat(md5(n::text), 4096), 'hex') FROM generate_series(1, 60) AS n"
    )
    await docs.execute("INSERT INTO doc (id, maker_id, note) SELECT n, 1 + n % 60, 'x' FROM generate_series(1, 90) AS n")
    batches = await batches_of(narrow)
    assert sum(row_counts(batches, "doc")) == 90
    for batch in batches:
        partners = await landed(narrow, batch, MAKER, Role.PARTNER)
        assert len(partners) * ROW_BYTES <= BATCH_BYTES
        rows = await landed(narrow, batch, DOC, Role.BASE)
        assert set(rows["maker_id"]) <= set(partners["maker_id"]), "a batch is self-contained"
    await narrow.run(Mode.FULL)
    assert (await narrow.verify()).is_equal


async def test_a_load_is_split_before_its_messages_name_too_many_objects(
    source: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await fill(source, orders=20, seed=1)
    few = replace(pipeline, limits=BatchLimits(objects=4))
    events = await few.ingest()
    contract = few.contract
    for event in events:
        objects = [object_count(contract, extract.table, extract.role) for extract in event.data.extracts]
        assert sum(objects) <= 4
    assert [event.data.is_last for event in events] == [False] * (len(events) - 1) + [True]
    assert [event.data.index for event in events] == list(range(len(events)))
    assert [event.data.hashes is not None for event in events] == [event.data.is_last for event in events]
    await few.load(*[await few.remodel(event) for event in events])
    await source.execute("DELETE FROM payment WHERE payment_id = 3")
    await few.run(compare_keys=True)
    assert await few.select("SELECT payment_id FROM fact_payment WHERE _deleted_at IS NOT NULL") == [(3,)]
    assert (await few.verify()).is_equal


LIMITS = BatchLimits()


def test_the_largest_possible_message_fits_into_sqs() -> None:
    name = "t" * 63
    names = BatchKeys(name, 2**62, 10**5 - 1).extract(name, Role.PARTNER, "0" * 64)
    ref = ObjectRef(bucket="b" * 63, key=names, byte_count=2**40, row_count=LIMITS.rows, sha256="0" * 64)
    assert len(Extract(table=name, role=Role.PARTNER, object=ref).model_dump_json()) < 1_000
    assert LIMITS.objects * 1_000 <= MESSAGE_BYTES_MAXIMUM // 2


# --- values that can't travel ----------------------------------------------------------------------------------------

LARGE = VALUE_BYTES_MAXIMUM + MIB
LARGE_DOCS = f"""
INSERT INTO doc (id, note) VALUES (1, 'small');
INSERT INTO doc (id, body) VALUES (2, decode(repeat('00', {LARGE // 2}), 'hex'));
INSERT INTO doc (id, note) VALUES (3, repeat('x', {LARGE}));
INSERT INTO doc (id, tags) VALUES (4, to_jsonb(repeat('x', {LARGE})));
INSERT INTO doc (id, body, note, tags)
SELECT 5, decode(repeat('00', {12 * MIB}), 'hex'), repeat('x', {24 * MIB}), to_jsonb(repeat('x', {24 * MIB}));
"""
TOO_LARGE = "larger than 32 MiB as text"
IN_LARGE_ROW = "in a row larger than 48 MiB as text"
REFUSED = {
    2: f"body is {TOO_LARGE}",
    3: f"note is {TOO_LARGE}",
    4: f"tags is {TOO_LARGE}",
    5: f"body is {IN_LARGE_ROW}; note is {IN_LARGE_ROW}; tags is {IN_LARGE_ROW}",
}


def quarantined(pipeline: Pipeline, messages: Sequence[BatchRemodelled]) -> dict[int, str]:
    """The reason of each key that a run put into quarantine."""
    keys = [message.data.quarantine.key for message in messages if message.data.quarantine is not None]
    lines = [line for key in keys for line in pipeline.objects.buckets[PROCESSED][key].splitlines()]
    return {entry["key"]["id"]: entry["problems"][0]["reason"] for entry in map(json.loads, lines)}


async def test_a_value_that_is_too_large_is_quarantined_by_its_key_and_the_rest_loads(
    docs: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await docs.execute(LARGE_DOCS)
    shop = pipeline.reading(DOCS)
    assert quarantined(shop, await shop.run()) == REFUSED
    assert await shop.select("SELECT id, note FROM dim_doc") == [(1, "small")]
    verdict = await shop.verify()
    assert (verdict.is_equal, verdict.quarantined) == (True, len(REFUSED))
    await docs.execute("UPDATE doc SET body = NULL, note = 'small', tags = NULL")
    assert quarantined(shop, await shop.run()) == {}
    verdict = await shop.verify()
    assert (verdict.is_equal, verdict.quarantined) == (True, 0)


async def test_a_partner_s_large_value_refuses_only_rows_that_use_it_and_a_carried_one_none(
    docs: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await docs.execute("ALTER TABLE doc ADD COLUMN draft bytea")
    await docs.execute(f"INSERT INTO maker VALUES (1, NULL, decode(repeat('00', {LARGE // 2}), 'hex'))")
    await docs.execute("INSERT INTO doc (id, maker_id, draft) SELECT 1, 1, portrait FROM maker")
    carrying = replace(DOCS, source_tables=(MAKER, replace(DOC, drift=Drift.CARRY)), warehouse_tables=(DIM_DOC,))
    shop = pipeline.reading(carrying)
    messages = await shop.run(Mode.FULL)
    assert quarantined(shop, messages) == {}
    assert await shop.select("SELECT id, town FROM dim_doc") == [(1, None)]
    assert (await shop.verify()).is_equal
