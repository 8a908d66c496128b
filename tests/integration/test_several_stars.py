"""Several stars in one warehouse database: each is loaded, proved and deleted from by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from contracts.contract import Contract
from contracts.messages import Mode
from contracts.tables import Dimension
from contracts.warehouse import STAR_LOCK
from infra.local.databases import READER, SOURCE_OWNER
from services.operator.proof.history import check_history
from services.operator.runs import RunOutcome, last_runs
from shared.star_schema.evolution import SchemaNotReadyError
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.plans import plan_for, problems_of
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import DIM_MAKER, SCHEMA, SHOP, with_table
from tests.integration.plain_star import keys_in_quarantine, require_equal

OTHER_SCHEMA = 'dw."2"\'s\n'  # to be quoted wherever it is written
OTHER: Contract = replace(
    with_table(SHOP, replace(DIM_MAKER, surrogate="maker_key", history=True)),
    name="other",
    warehouse_schema="other",
    ledger_schema=OTHER_SCHEMA,
)
ROWS = """
INSERT INTO maker VALUES (1, 'Ada', 'Leeds', 10.25), (2, 'Bob', 'York', NULL);
INSERT INTO item (item_id, maker_id, code, sold_at) VALUES (1, 1, 'abc', '2024-02-29'), (2, 2, 'b', '2024-03-01');
"""


@pytest.fixture
async def owners(
    postgres_cluster: TestCluster, source_database: str
) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    """Sessions of the applications of two sources, of which the second is another database with the same rows."""
    second = postgres_cluster.create_database()
    connections = [await asyncpg.connect(postgres_cluster.url(name, SOURCE_OWNER)) for name in (source_database, second)]
    for connection in connections:
        await connection.execute(SCHEMA + ROWS)
    yield connections[0], connections[1]
    for connection in connections:
        await connection.close()
    postgres_cluster.drop_database(second)


@pytest.fixture
async def stars(
    owners: tuple[asyncpg.Connection, asyncpg.Connection], postgres_cluster: TestCluster, warehouse_url: str
) -> AsyncIterator[tuple[Pipeline, Pipeline]]:
    """A star without a word about its ledger, and one with a ledger of its own, in one warehouse."""
    names = [await owner.fetchval("SELECT current_database()") for owner in owners]
    urls = [postgres_cluster.url(name, READER) for name in names]
    async with (
        open_pipeline(urls[0], warehouse_url, contract=SHOP) as one,
        open_pipeline(urls[1], warehouse_url, contract=OTHER) as other,
    ):
        yield one, other


async def test_two_stars_of_two_sources_are_loaded_proved_and_deleted_from_independently(
    owners: tuple[asyncpg.Connection, asyncpg.Connection], stars: tuple[Pipeline, Pipeline], warehouse_url: str
) -> None:
    for star in stars:
        await star.run()
    before = [await star.dump() for star in stars]
    for place, (owner, star) in enumerate(zip(owners, stars, strict=True)):
        await owner.execute("DELETE FROM item WHERE item_id = 2; DELETE FROM maker WHERE maker_id = 2")
        await owner.execute("UPDATE maker SET maker_name = 'Eve'")
        neighbour = stars[1 - place]
        unchanged = await neighbour.dump()
        await star.run(compare_keys=True)
        assert await star.dump() != before[place]
        assert await neighbour.dump() == unchanged
        await require_equal(star)
        verdict = await neighbour.verify()
        assert (verdict.different, verdict.stuck) == (0, 0)
    for star in stars:
        await star.run(mode=Mode.FULL)
        await require_equal(star)
        assert (await check_history(star.system)).is_complete
        assert not (await plan_for(star.contract, warehouse=warehouse_url)).changes
        assert {run.outcome for run in (await last_runs(star.system, limit=9)).runs} == {RunOutcome.LOADED}
    versions = "SELECT maker_id, maker_name, is_current FROM other.dim_maker_history ORDER BY 1, version"
    assert await stars[1].select(versions) == [(1, "Ada", False), (1, "Eve", True), (2, "Bob", False)]


async def test_the_quarantine_of_each_star_is_its_own(
    owners: tuple[asyncpg.Connection, asyncpg.Connection], stars: tuple[Pipeline, Pipeline]
) -> None:
    for owner, star in zip(owners, stars, strict=True):
        await owner.execute("INSERT INTO item (item_id, code, sold_at) VALUES (3, 'too long', '2024-03-02')")
        await star.run()
        assert await keys_in_quarantine(star) == {"dim_item": [(3,)]}
        await require_equal(star, quarantined=1)
        await owner.execute("DELETE FROM item WHERE item_id = 3")
        await star.run(compare_keys=True)
        await require_equal(star)


async def test_a_star_is_loaded_while_the_other_is_locked(stars: tuple[Pipeline, Pipeline], warehouse_url: str) -> None:
    for star in stars:
        await star.run()
    async with stars[0].warehouse.transaction() as one:
        await one.execute("SELECT pg_advisory_xact_lock($1)", STAR_LOCK)
        await stars[1].run(mode=Mode.FULL)
        await require_equal(stars[1])


async def test_a_star_with_the_ledger_of_another_is_refused(stars: tuple[Pipeline, Pipeline], warehouse_url: str) -> None:
    one, other = stars
    await one.run()
    stranger = replace(OTHER, ledger_schema="starlift")
    expected = (
        "schema 'starlift' of the warehouse holds the ledger of another star, that of contract 'shop'; give contract 'other' a "
        "`ledger_schema` of its own or, if it is the same contract renamed, update starlift.contract"
    )
    assert await problems_of(stranger, warehouse=warehouse_url) == [expected]
    with pytest.raises(SchemaNotReadyError) as refusal:
        await other.reading(stranger).star.ensure_schema()
    assert str(refusal.value) == expected


@pytest.mark.parametrize("first", [0, 1])
async def test_a_star_with_the_tables_of_another_is_refused(
    stars: tuple[Pipeline, Pipeline], warehouse_url: str, first: int
) -> None:
    contracts = SHOP, replace(OTHER, warehouse_schema="public")
    await stars[first].reading(contracts[first]).run()
    later = contracts[1 - first]
    (problem,) = await problems_of(later, warehouse=warehouse_url)
    assert problem == (
        "schema 'public' of the warehouse has tables of another star (dim_day, dim_item, dim_maker, dim_shelf, fact_sale); "
        f"give contract '{later.name}' a `warehouse_schema` of its own or, if it is the same star, its former `ledger_schema`"
    )
    tables = tuple(replace(table, name=f"{table.name}_2") for table in SHOP.warehouse_tables if isinstance(table, Dimension))
    beside = replace(later, warehouse_tables=tables)
    assert await problems_of(beside, warehouse=warehouse_url) == []
    kept = [change.name for change in (await plan_for(beside, warehouse=warehouse_url)).changes if change.action == "keep"]
    assert kept == [], "the tables of the other star are not former ones of this one"
