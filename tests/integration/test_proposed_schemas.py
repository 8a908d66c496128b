"""`starlift init` on several schemas, on views and on tables without a key."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from contracts.yaml_text import read_contract
from infra.local.databases import READER
from tests.fixtures.command import Answer, run_starlift
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.plain_star import require_equal

BICYCLE_MAKER = (Path(__file__).parents[1] / "fixtures" / "bicycle_maker.sql").read_text(encoding="utf-8")
Command = Callable[..., Answer]


@pytest.fixture
def starlift(postgres_cluster: TestCluster, source_database: str) -> Command:
    """Runs `starlift` beside a source to which the environment leads."""
    environment = {**os.environ, "STARLIFT_SOURCE_URL": postgres_cluster.url(source_database, READER)}
    return lambda *words: run_starlift(*map(str, words), environment=environment)


async def test_five_schemas_with_composite_keys_and_domains_are_proposed_planned_loaded_and_proved(
    owner: asyncpg.Connection, empty: Pipeline, starlift: Command, tmp_path: Path
) -> None:
    await owner.execute(BICYCLE_MAKER)
    path, began = tmp_path / "bicycles.yaml", time.monotonic()
    written = await asyncio.to_thread(starlift, "init", "--output", path, "--schema", "*")
    assert written.code == 0, written.err
    planned = await asyncio.to_thread(starlift, "plan", "--contract", path)
    assert planned.code == 3, planned.out
    assert time.monotonic() - began < 60
    text = path.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    assert Path(first.removeprefix("# yaml-language-server: $schema=")).name == "contract.json"
    assert "# Proposed by `starlift init` from schemas hr, person, production, public, purchasing, sales." in text
    contract = read_contract(text, path.name)
    assert len({table.source for table in contract.remodelled_tables}) == 66, "all but the two of credit cards"
    assert {fact.source for fact in contract.facts} >= {"sales_order_detail", "sales_order_header", "purchase_order_detail"}
    shop = empty.reading(contract)
    await shop.run()
    await require_equal(shop)
    again = await asyncio.to_thread(starlift, "pull", "--contract", path)
    assert (again.code, again.out) == (0, "")


async def test_tables_of_one_name_in_two_schemas_are_told_apart_and_stay_so(
    owner: asyncpg.Connection, empty: Pipeline, starlift: Command, tmp_path: Path
) -> None:
    await owner.execute(
        """
        CREATE SCHEMA a; CREATE SCHEMA b; GRANT USAGE ON SCHEMA a, b TO PUBLIC;
        CREATE TABLE a.city (id integer PRIMARY KEY, name text);
        CREATE TABLE b.city (id integer PRIMARY KEY, twin integer REFERENCES a.city, name text);
        CREATE TABLE a."x/y" (id integer PRIMARY KEY);
        INSERT INTO a.city VALUES (1, 'York'); INSERT INTO b.city VALUES (2, 1, 'Bath'); INSERT INTO a."x/y" VALUES (3);
        GRANT SELECT ON ALL TABLES IN SCHEMA a, b TO PUBLIC;
        """
    )
    path = tmp_path / "cities.yaml"
    written = await asyncio.to_thread(starlift, "init", "--output", path, "--schema", "b", "--schema", "a")
    assert written.code == 0, written.err
    text = path.read_text(encoding="utf-8")
    assert "source_schema: b\n" in text
    assert "    a_city:\n      schema: a\n      table: city\n" in text
    assert "    x_y:\n      schema: a\n      table: x/y\n" in text
    await owner.execute("DROP TABLE b.city CASCADE")  # the other keeps its name
    pulled = await asyncio.to_thread(starlift, "pull", "--contract", path)
    assert pulled.out == "- table b_city\n"
    assert "'b_city'" in pulled.err
    await owner.execute("CREATE TABLE b.city (id integer PRIMARY KEY, twin integer REFERENCES a.city, name text)")
    await owner.execute("INSERT INTO b.city VALUES (2, 1, 'Bath'); GRANT SELECT ON b.city TO PUBLIC")
    path.write_text(text, encoding="utf-8")
    shop = empty.reading(read_contract(text, path.name))
    await shop.run()
    assert await shop.select("SELECT id, name, twin_name FROM dim_b_city") == [(2, "Bath", "York")]
    assert await shop.select("SELECT id FROM dim_x_y") == [(3,)]
    await require_equal(shop)


VIEWS = """
CREATE TABLE sale (id integer PRIMARY KEY, city text, amount numeric);
CREATE VIEW total AS SELECT city, sum(amount) AS amount, count(*) AS row_id FROM sale GROUP BY city;
CREATE TABLE visit (city text, at timestamptz NOT NULL, changed_at timestamptz NOT NULL);
INSERT INTO sale VALUES (1, 'York', 5), (2, 'York', 5), (3, 'Bath', 1);
INSERT INTO visit SELECT 'York', now(), now() FROM generate_series(1, 3);
"""


async def test_views_and_tables_without_a_key_are_proposed_if_they_are_named(
    owner: asyncpg.Connection, empty: Pipeline, starlift: Command, tmp_path: Path
) -> None:
    await owner.execute(VIEWS)
    path = tmp_path / "sales.yaml"
    assert (await asyncio.to_thread(starlift, "init", "--output", path)).code == 0
    text = path.read_text(encoding="utf-8")
    left_out = "# Left out: total: it is a view: no transaction id of its rows shows what changed. `--include total` adds it"
    assert left_out in text
    assert "# Left out: visit: it has neither a primary key nor a unique index on NOT NULL columns. `--include visit`" in text
    assert (await asyncio.to_thread(starlift, "init", "--output", path, "--force", "--include", "*")).code == 0
    text = path.read_text(encoding="utf-8")
    assert "    visit:\n      row_id: row_id\n      columns:\n" in text
    assert "    total:\n      row_id: row_id_2\n      columns:\n" in text
    shop = empty.reading(read_contract(text, path.name))
    assert [(fact.source, fact.version) for fact in shop.contract.facts] == [("total", ()), ("visit", ())]
    await shop.run()
    await require_equal(shop)
    # What is declared in the place of a row id stays.
    declared = text.replace("      row_id: row_id_2\n", "      full: true\n      key: city\n").replace("      row_id_2:\n", "")
    path.write_text(declared, encoding="utf-8")
    await owner.execute("ALTER TABLE visit ADD COLUMN note text")
    pulled = await asyncio.to_thread(starlift, "pull", "--contract", path)
    assert (pulled.code, pulled.out, pulled.err) == (3, "+ visit.note: text\n", "")
    again = path.read_text(encoding="utf-8")
    assert "    total:\n      full: true\n      key: [city]\n" in again
    assert "    visit:\n      row_id: row_id\n" in again
