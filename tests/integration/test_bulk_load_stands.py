"""While a bulk load stands: what readers see, migrations, loaders of an earlier version, and what keeps one from beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from contracts.column_types import TEXT
from contracts.origins import FromSource
from contracts.tables import Column
from services.loading import bulk_load
from services.loading.migrate import migrate_schema
from shared.errors import PermanentError
from shared.star_schema.schema import foreign_keys
from shared.star_schema.star import read_star
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.totesys import CONTRACT, SOURCE_TABLES
from tests.integration.history_shop import SCHEMA, SEEN, contract_with
from tests.integration.test_bulk_load import CALENDAR_ALONE, KEYS, STANDS, TABLES, KilledError, killing, remade
from tests.integration.test_loading import extended

pytestmark = begins_with(filled_totesys(orders=40))


@pytest.fixture
def pages(pipeline: Pipeline) -> Pipeline:
    """The pipeline with a first load of several batches."""
    return pipeline.cut(200)


async def test_a_standing_bulk_load_keeps_its_run_incomplete_for_every_reader(
    filled: asyncpg.Connection, pages: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when all of its batches are there, in any order: the proof would miss the calendar."""
    messages = await pages.read()
    await pages.load(messages[-1], *messages[1:-1])
    assert (await pages.progress()).consistent_through is None
    with monkeypatch.context() as patch:
        patch.setattr(bulk_load, "_build_keys", killing(bulk_load._build_keys))
        with pytest.raises(KilledError):
            await pages.load(messages[0])
    progress = await pages.progress()
    assert [batch.data.index for batch in progress.missing] == [messages[-1].data.index]
    assert progress.consistent_through is None
    payments = [(await filled.fetchval("SELECT count(*)::int FROM payment"),)]
    assert await pages.select("SELECT count(*)::int FROM fact_payment_current") == payments
    assert not (await pages.verify()).is_equal
    await pages.load(messages[0])
    assert (await pages.progress()).missing == ()
    assert (await pages.verify()).is_equal


async def test_readers_read_while_the_end_builds_keys_and_inserts_what_is_missing(
    filled: asyncpg.Connection, pages: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A constraint locks its table against readers until the commit, so it comes last."""
    messages, seen = await pages.read(), list[object]()

    def reading_after(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def read_meanwhile(*arguments: Any, **options: Any) -> Any:
            found = await step(*arguments, **options)
            async with asyncio.timeout(10):
                seen.extend(await pages.select("SELECT count(*)::int FROM fact_payment_current"))
            return found

        return read_meanwhile

    for step in ("add_foreign_keys", "validate_foreign_keys", "insert_referred"):
        monkeypatch.setattr(bulk_load, step, reading_after(getattr(bulk_load, step)))
    await pages.load(*messages[:-1])
    await pages.select("DELETE FROM dim_staff WHERE staff_id = 1")  # so that the end has something to look for
    await pages.load(messages[-1])
    assert seen == [(await filled.fetchval("SELECT count(*)::int FROM payment"),)] * (2 + TABLES)
    assert await pages.select(KEYS) == [(TABLES,)]


async def test_a_column_is_added_and_widened_while_a_bulk_load_stands(filled: asyncpg.Connection, pages: Pipeline) -> None:
    """A deployment migrates; the loader of the previous build copies on, and the new one reads everything again."""
    *first, last = await pages.read()
    await pages.load(first[0])
    wider = extended(
        replace(CONTRACT, source_tables=SOURCE_TABLES),
        "dim_counterparty",
        Column("delivery_contact", TEXT, FromSource("delivery_contact"), nullable=True),
    )
    await migrate_schema(pages.warehouse, wider)
    await pages.select("ALTER TABLE dim_counterparty ALTER COLUMN counterparty_id TYPE bigint")
    assert await pages.select(KEYS) == CALENDAR_ALONE
    assert await pages.select(STANDS) == [(last.data.run,)]
    await pages.load(*first[1:], last)
    assert await pages.select(KEYS) == [(TABLES,)]
    assert (await pages.verify()).is_equal
    newer = pages.reading(wider)
    await newer.run()
    assert (await newer.verify()).is_equal


async def test_keys_that_an_earlier_version_builds_end_the_bulk_load(filled: asyncpg.Connection, pages: Pipeline) -> None:
    """Its loader finds no key to merge by, builds what is missing, and merges a later run's image."""
    *first, last = await pages.read()
    await pages.load(first[0])
    await build_keys(pages)
    assert await pages.select(STANDS) == [(last.data.run,)]
    await pages.load(remade(first[0]), *first[1:], last)
    assert await pages.select(STANDS) == []
    assert (await pages.verify()).is_equal


async def build_keys(pages: Pipeline) -> None:
    """As a loader of an earlier version does, to which the record says nothing."""
    async with pages.warehouse.transaction() as connection:
        await connection.execute("SAVEPOINT before; DELETE FROM starlift.bulk_load")
        star = await read_star(connection, CONTRACT)
        await connection.execute("ROLLBACK TO SAVEPOINT before")
        assert not star.is_bulk_loading
        for table in CONTRACT.remodelled_tables:
            identity = ", ".join(table.identity)
            await connection.execute(f"ALTER TABLE {table.name} ADD CONSTRAINT {table.name}_pkey PRIMARY KEY ({identity})")


async def test_a_row_that_an_earlier_version_found_gone_meanwhile_is_marked_at_the_end(
    filled: asyncpg.Connection, pages: Pipeline
) -> None:
    """Its loader merges a later run, whose tombstone the copy of an older image does not see."""
    messages = await pages.read()
    late = [message for message in messages if "fact_payment" in {table.table for table in message.data.tables}]
    await pages.load(next(message for message in messages if message not in late))
    await build_keys(pages)
    await pages.select(
        "INSERT INTO starlift.tombstone (table_name, key, run, found_at) "
        f"VALUES ('fact_payment', '[3]', {messages[0].data.run + 1}, '2026-11-30 00:00+00')"
    )
    await pages.load(*messages)
    assert await pages.select(STANDS) == []
    assert await pages.select("SELECT payment_id FROM fact_payment WHERE _deleted_at IS NOT NULL") == [(3,)]


async def test_foreign_keys_that_an_earlier_version_adds_end_the_bulk_load(filled: asyncpg.Connection, pages: Pipeline) -> None:
    """It adds them after a run of its own is complete, and a fact may come before what it refers to."""
    messages = await pages.read()
    facts = [message for message in messages if any(table.table.startswith("fact") for table in message.data.tables)]
    others = [message for message in messages if message not in facts]
    await pages.load(others[0])
    await build_keys(pages)
    for _, statement in foreign_keys(CONTRACT):
        await pages.select(f"{statement} NOT VALID")
    await pages.load(*facts, *others)
    assert await pages.select(STANDS) == []
    assert (await pages.verify()).is_equal


@pytest.mark.parametrize(
    "obstacle",
    [
        "CREATE TABLE mine (staff_id integer REFERENCES dim_staff)",  # needs the key
        "ALTER TABLE dim_staff ENABLE ROW LEVEL SECURITY",  # COPY refuses it
        "INSERT INTO dim_staff SELECT 99, 'a', 'b', 'c', 'd', 'e', 7",
    ],
)
async def test_a_star_that_is_not_plain_and_empty_is_merged_into(
    filled: asyncpg.Connection, pages: Pipeline, obstacle: str
) -> None:
    await pages.star.ensure_schema()
    await pages.select(obstacle)
    messages = await pages.read()
    await pages.load(messages[0])
    assert await pages.select(STANDS) == []
    assert await pages.select(KEYS) >= [(TABLES,)]
    await pages.load(*messages[1:])
    await pages.select("DELETE FROM dim_staff WHERE staff_id = 99")
    assert (await pages.verify()).is_equal


@pytest.mark.parametrize("later", [0, 1])
async def test_a_second_source_is_refused_whatever_the_bulk_load_holds(
    filled: asyncpg.Connection, pages: Pipeline, later: int
) -> None:
    """One batch whose run is incomplete; the ledger has nothing yet, since its last batch came first."""
    messages = await pages.read()
    await pages.load(messages[-1])
    assert await pages.select("SELECT count(*)::int FROM starlift.ledger") == [(0,)]
    with pytest.raises(PermanentError, match="rows of source 'totesys'; give source 'other' a star of its own"):
        await pages.load(remade(messages[0], source_name="other", run=messages[0].data.run + later))
    await pages.load(*messages)
    assert (await pages.verify()).is_equal


async def test_a_history_that_begins_with_a_bulk_load_has_seen_its_snapshot(owner: asyncpg.Connection, empty: Pipeline) -> None:
    """A loader that starts while it stands adds no version: the ledger does not have the last batch yet."""
    await owner.execute(SCHEMA)
    shop = empty.reading(contract_with()).cut(1)
    messages = await shop.read()
    await shop.load(messages[-1], messages[0])
    await shop.star.ensure_schema()
    assert await shop.select(SEEN) == []
    await shop.load(*messages)
    run, taken_at = messages[0].data.run, messages[0].data.snapshot.taken_at
    assert await shop.select("SELECT customer_id, _run, _seen_at FROM dim_customer_versions ORDER BY 1") == [
        (1, run, taken_at),
        (2, run, taken_at),
    ]
    assert (await shop.verify()).is_equal


async def test_what_the_bulk_run_has_seen_stays_in_the_history_when_another_run_ends_it(
    owner: asyncpg.Connection, empty: Pipeline
) -> None:
    """Its image of a row is replaced right after the end."""
    await owner.execute(SCHEMA)
    shop = empty.reading(contract_with()).cut(1)
    first = await shop.read()
    await owner.execute("UPDATE customer SET name = 'Eve' WHERE customer_id = 1")
    second = await shop.read()
    await shop.load(*first[:-1], *second)
    seen = [(run, name) for key, run, name, *_ in await shop.select(SEEN) if key == 1]
    assert seen == [(first[0].data.run, "Ada"), (second[0].data.run, "Eve")]
