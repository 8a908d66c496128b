"""The ledger, inferred members, foreign keys, and how the warehouse takes a changed contract."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest

from contracts.column_types import INTEGER, TEXT
from contracts.contract import Contract
from contracts.messages import Mode
from contracts.origins import FromSource
from contracts.tables import Column, SourceColumn, WarehouseTable
from contracts.warehouse import STAR_LOCK
from services.loading.handler import Dependencies, handle
from services.loading.postgres_warehouse import PostgresWarehouse
from shared.errors import PermanentError
from shared.star_schema.evolution import SchemaNotReadyError
from shared.star_schema.schema import foreign_keys
from shared.testing import FakeQueue
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.limits import HANG_S
from tests.fixtures.pipeline import PROCESSED, Pipeline
from tests.fixtures.totesys import CONTRACT, SOURCE_TABLES

pytestmark = begins_with(filled_totesys(orders=40))
VALIDATED = """
SELECT conname, convalidated FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY conname
"""


async def test_a_message_delivered_twice_is_loaded_once(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.run()
    before = await pipeline.select("SELECT * FROM fact_payment ORDER BY payment_id")
    pipeline.objects.buckets[PROCESSED].clear()  # long expired; and no object is read for a double
    await pipeline.load(message)
    assert await pipeline.select("SELECT * FROM fact_payment ORDER BY payment_id") == before
    assert await pipeline.select("SELECT count(*) FROM starlift.ledger") == [(1,)]


async def test_two_loaders_load_the_same_batch_once(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.read()
    await asyncio.gather(*(pipeline.load(message) for _ in range(4)))
    assert await pipeline.select("SELECT count(*) FROM starlift.ledger") == [(1,)]
    assert await pipeline.select("SELECT count(*), count(DISTINCT _batch_id) FROM dim_staff") == [(20, 1)]
    assert (await pipeline.verify()).is_equal


async def test_a_batch_remade_under_its_old_run_replaces_its_rows_but_not_those_of_later_runs(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    """This happens after a repair of remodelling: the rows are another image of the same snapshot."""
    (wrong,) = await pipeline.run()
    await pipeline.select("UPDATE dim_staff SET first_name = 'wrong'")
    await filled.execute("UPDATE staff SET first_name = 'Ada' WHERE staff_id = 1")
    await pipeline.run()
    await pipeline.load(wrong.model_copy(update={"data": wrong.data.model_copy(update={"batch_id": uuid4()})}))
    assert await pipeline.select("SELECT count(*) FROM dim_staff WHERE first_name = 'wrong'") == [(0,)]
    assert (await pipeline.verify()).is_equal


async def test_a_load_waits_while_the_schema_is_changed(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    """Both lock several tables in opposite order, and would deadlock without one lock before them."""
    warehouse = PostgresWarehouse(pipeline.warehouse, pipeline.contract)
    deps = Dependencies(pipeline.objects, warehouse, pipeline.contract, FakeQueue())
    first, second = (await pipeline.cut(600).read())[:2]
    await handle(first, deps)
    async with pipeline.warehouse.connection() as schema_change:
        async with schema_change.transaction():
            await schema_change.execute("SELECT pg_advisory_xact_lock($1)", STAR_LOCK)
            load = asyncio.create_task(handle(second, deps))
            async with asyncio.timeout(HANG_S):
                while not await schema_change.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    assert not load.done()
                    await asyncio.sleep(0.01)
            assert await schema_change.fetchval("SELECT count(*) FROM starlift.ledger") == 1
        await load
    assert await pipeline.select("SELECT count(*) FROM starlift.ledger") == [(2,)]


async def test_concurrent_loads_of_the_same_date_do_not_wait_for_each_other(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    """The calendar comes first: a load that locked an existing date would hold it until its end."""
    await filled.execute("UPDATE payment SET payment_date = '2026-01-01'")
    deps = Dependencies(pipeline.objects, PostgresWarehouse(pipeline.warehouse, CONTRACT), CONTRACT, FakeQueue())
    for message in await pipeline.read():
        await handle(message, deps)
    await filled.execute("UPDATE staff SET first_name = 'Ada'")
    await filled.execute("UPDATE payment SET paid = NOT paid WHERE payment_id <= 5")
    (slow,) = await pipeline.read()
    await filled.execute("UPDATE payment SET paid = NOT paid WHERE payment_id > 5")
    (quick,) = await pipeline.read()
    async with pipeline.warehouse.connection() as other:
        async with other.transaction():
            await other.execute("LOCK TABLE dim_staff IN SHARE MODE")
            load = asyncio.create_task(handle(slow, deps))
            async with asyncio.timeout(HANG_S):
                while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    assert not load.done()
                    await asyncio.sleep(0.01)
                await handle(quick, deps)
            assert not load.done()
        await load
    assert (await pipeline.verify()).is_equal


async def test_the_ledger_records_what_was_loaded(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.run()
    ((run, index, kind, is_last, quarantined, tables, cause),) = await pipeline.select(
        "SELECT run, batch_index, event ->> 'type', event -> 'data' ->> 'is_last', event -> 'data' ->> 'quarantined', "
        "jsonb_array_length(event -> 'data' -> 'tables'), event ->> 'causationid' FROM starlift.ledger"
    )
    assert (run, index, is_last, quarantined, tables) == (message.data.run, 0, "true", "0", 10)
    assert (kind, cause) == ("starlift.batch_loaded.v2", str(message.id))


async def test_a_batch_that_fails_halfway_leaves_nothing(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.run()
    await pipeline.empty_warehouse()
    await pipeline.select("ALTER TABLE fact_payment ADD CONSTRAINT obstacle CHECK (payment_id <> 7)")
    with pytest.raises(PermanentError, match="obstacle"):
        await pipeline.load(message)
    assert {name: len(rows) for name, rows in (await pipeline.dump()).items() if rows} == {}
    assert await pipeline.select("SELECT count(*) FROM starlift.ledger") == [(0,)]
    await pipeline.select("ALTER TABLE fact_payment DROP CONSTRAINT obstacle")
    await pipeline.load(message)
    assert (await pipeline.verify()).is_equal


async def test_inferred_members_of_early_facts_are_replaced_by_the_real_rows(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    *dimensions, facts = await pipeline.cut(600).read()
    await filled.execute("UPDATE design SET design_name = 'A' WHERE design_id = 1")
    await pipeline.run()  # a first load infers no member before its end
    assert "fact_sales_order" in {table.table for table in facts.data.tables}
    await pipeline.load(facts)
    inferred = await pipeline.select("SELECT DISTINCT _run, first_name, department_name, _batch_id FROM dim_staff")
    assert inferred == [(0, "(unknown)", "(unknown)", facts.data.batch_id)]
    found = await pipeline.select("SELECT DISTINCT _run, address_line_2, phone FROM dim_location")
    assert found == [(0, None, "(unknown)")]
    await pipeline.load(*dimensions)
    assert await pipeline.select("SELECT count(*) FROM dim_staff WHERE _run = 0 OR first_name = '(unknown)'") == [(0,)]
    assert (await pipeline.verify()).is_equal


async def test_every_reference_of_a_fact_is_a_foreign_key_after_the_first_load(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await pipeline.cut(200).run()
    found = await pipeline.select(VALIDATED)
    assert found == sorted((name, True) for name, _ in foreign_keys(CONTRACT))
    assert len(found) == 9 + 8 + 7
    await pipeline.run(Mode.FULL)
    assert await pipeline.select(VALIDATED) == found


async def test_foreign_keys_wait_until_every_batch_of_the_run_is_loaded(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    *first, last = await pipeline.cut(200).read()
    await pipeline.load(last, *first[:-1])
    assert await pipeline.select(VALIDATED) == []
    await pipeline.load(first[-1])
    assert len(await pipeline.select(VALIDATED)) == 24


def extended(contract: Contract, name: str, *columns: Column) -> Contract:
    """The contract with more columns in one warehouse table."""

    def grown(table: WarehouseTable) -> WarehouseTable:
        return replace(table, columns=(*table.columns, *columns)) if table.name == name else table

    return replace(contract, warehouse_tables=tuple(grown(table) for table in contract.warehouse_tables))


@begins_with(loaded_totesys(orders=40))
async def test_a_column_that_the_contract_gains_is_added_and_filled_by_a_full_read(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    wider = extended(
        extended(
            replace(CONTRACT, source_tables=SOURCE_TABLES),
            "dim_counterparty",
            Column("delivery_contact", TEXT, FromSource("delivery_contact"), nullable=True),
        ),
        "fact_payment",
        Column("company_ac_number", INTEGER, FromSource("company_ac_number")),
    )
    (message,) = await pipeline.reading(wider).run()
    assert {table.table for table in message.data.tables} == {table.name for table in CONTRACT.warehouse_tables[1:]}
    expected = [tuple(row) for row in await filled.fetch("SELECT payment_id, company_ac_number FROM payment ORDER BY 1")]
    assert await pipeline.select("SELECT payment_id, company_ac_number FROM fact_payment_current ORDER BY 1") == expected
    assert (await pipeline.reading(wider).verify()).is_equal
    assert await pipeline.reading(wider).ingest() == []


async def test_a_table_that_starlift_did_not_create_is_refused_and_left_untouched(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await pipeline.select("CREATE TABLE dim_staff (staff_id int, note text)")
    await pipeline.select("INSERT INTO dim_staff VALUES (1, 'mine')")
    (message,) = await pipeline.read()
    expected = (
        r"^schema 'public' of the warehouse has tables that Starlift did not create \(dim_staff: no column '_run'\); "
        "move them away, or give Starlift an empty database$"
    )
    with pytest.raises(SchemaNotReadyError, match=expected):
        await pipeline.load(message)
    assert await pipeline.select("SELECT * FROM dim_staff") == [(1, "mine")]
    assert await pipeline.select("SELECT count(*) FROM pg_class WHERE relname LIKE 'fact_%'") == [(0,)]


async def test_a_contract_may_use_schemas_of_its_own(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    star = pipeline.reading(replace(CONTRACT, warehouse_schema='the "star"'))
    await star.run()
    assert (await star.verify()).is_equal
    assert await star.select("SELECT to_regclass('public.dim_staff')") == [(None,)]


@begins_with(loaded_totesys(orders=40))
async def test_a_second_star_with_the_same_ledger_is_refused_and_marks_nothing_deleted(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    second = pipeline.reading(replace(CONTRACT, name="second", warehouse_schema="second"))
    (message,) = await second.read(Mode.FULL, compare_keys=True)
    with pytest.raises(SchemaNotReadyError, match="that of contract 'totesys'; give contract 'second' a `ledger_schema` of"):
        await second.load(message)
    assert (await pipeline.verify()).is_equal


async def test_a_second_source_in_one_star_is_refused(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.run()
    for name in ("another", "utter"):  # before and behind ours in the index
        other = message.model_copy(update={"data": message.data.model_copy(update={"source_name": name, "batch_id": uuid4()})})
        with pytest.raises(PermanentError, match=rf"rows of source 'totesys'; give source '{name}' a star of its"):
            await pipeline.load(other)
    assert await pipeline.select("SELECT count(*) FROM starlift.ledger") == [(1,)]


async def test_extracts_of_another_contract_are_refused_by_name(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.ingest()
    staff = CONTRACT.source_table("staff")
    wider = replace(staff, columns=(*staff.columns, SourceColumn("nickname", TEXT)))
    tables = tuple(wider if table is staff else table for table in CONTRACT.source_tables)
    with pytest.raises(
        PermanentError, match=r"^extract of 'staff.base' in 'totesys/runs/.*bundle-.*json.gz' does not fit .*nickname"
    ):
        await pipeline.reading(replace(CONTRACT, source_tables=tables)).remodel(message)
