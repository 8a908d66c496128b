"""Texts match their keys as in a foreign key of PostgreSQL, or the pair of columns is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from contracts.column_types import INTEGER, TEXT
from contracts.contract import Contract
from contracts.messages import KeyRange
from contracts.origins import FromLookup, FromSource
from contracts.tables import Column, Fact, Lookup, WarehouseTable
from services.ingestion.selection import Selection
from services.ingestion.source import BatchLimits
from shared.catalog import SourceMismatchError
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.plain_star import dimension_of, of, require_equal, source_table

CITEXT = "CREATE EXTENSION citext;"
CODE, ITEM = source_table("code", "code", code=TEXT, label=TEXT), source_table("item", "id", id=INTEGER, code=TEXT)
SOLD = source_table("sold", "id", id=INTEGER, code=TEXT)
BLANKS = of(
    CODE,
    ITEM,
    SOLD,
    star=(
        dimension_of(CODE),
        dimension_of(ITEM, Column("label", TEXT, FromLookup("code", "label")), lookups=(Lookup("code", on=("code",)),)),
        Fact(
            "fact_sold",
            ("id",),
            (
                Column("id", INTEGER, FromSource("id")),
                Column("code", TEXT, FromSource("code"), references="dim_code"),
            ),
            "sold",
        ),
    ),
)


@pytest.mark.parametrize(
    ("key", "kind"), [("char(5)", "varchar(5)"), ("char(5)", "text"), ("padded", "short"), ("padded", "char(7)")]
)
async def test_blanks_that_a_foreign_key_ignores_are_ignored(
    owner: asyncpg.Connection, empty: Pipeline, key: str, kind: str
) -> None:
    await owner.execute(
        f"""
        CREATE DOMAIN padded AS char(5);
        CREATE DOMAIN short AS varchar(5);
        CREATE TABLE code (code {key} PRIMARY KEY, label text NOT NULL);
        CREATE TABLE item (id int PRIMARY KEY, code {kind} NOT NULL REFERENCES code);
        CREATE TABLE sold (id int PRIMARY KEY, code {kind} REFERENCES code);
        INSERT INTO code VALUES ('AB', 'x'), ('C', 'y');
        INSERT INTO item VALUES (1, 'AB  '), (2, 'AB'), (3, 'C ');
        INSERT INTO sold VALUES (1, 'AB '), (2, 'AB'), (3, 'C  '), (4, NULL);
        """
    )
    pipeline = empty.reading(replace(BLANKS, warehouse_tables=(*BLANKS.warehouse_tables[:2], nullable(BLANKS))))
    await pipeline.run()
    assert await pipeline.select("SELECT id, label FROM dim_item ORDER BY id") == [(1, "x"), (2, "x"), (3, "y")]
    assert await pipeline.select("SELECT code, label FROM dim_code ORDER BY 1") == [("AB", "x"), ("C", "y")]
    assert await pipeline.select("SELECT code FROM fact_sold ORDER BY id") == [("AB",), ("AB",), ("C",), (None,)]
    await require_equal(pipeline)
    await owner.execute("UPDATE code SET label = 'z' WHERE code = 'AB'; UPDATE item SET code = 'C   ' WHERE id = 2")
    await pipeline.run(compare_keys=True)
    assert await pipeline.select("SELECT id, label FROM dim_item ORDER BY id") == [(1, "z"), (2, "y"), (3, "y")]
    await require_equal(pipeline)


def nullable(contract: Contract) -> WarehouseTable:
    fact = contract.warehouse_tables[2]
    return replace(fact, columns=(fact.columns[0], replace(fact.columns[1], nullable=True)))


async def test_blanks_that_a_foreign_key_respects_are_respected(owner: asyncpg.Connection, empty: Pipeline) -> None:
    """By PostgreSQL's `=` the reference of item 1 would match both codes."""
    await owner.execute(
        """
        CREATE TABLE code (code varchar(5) PRIMARY KEY, label text NOT NULL);
        CREATE TABLE item (id int PRIMARY KEY, code char(5) REFERENCES code);
        CREATE TABLE sold (id int PRIMARY KEY, code text NOT NULL REFERENCES code);
        INSERT INTO code VALUES ('AB', 'x'), ('AB  ', 'y');
        INSERT INTO item VALUES (1, 'AB');
        INSERT INTO sold VALUES (1, 'AB  ');
        """
    )
    pipeline = empty.reading(BLANKS)
    await pipeline.run()
    assert await pipeline.select("SELECT id, label FROM dim_item") == [(1, "x")]
    assert await pipeline.select("SELECT code, label FROM dim_code ORDER BY 1") == [("AB", "x"), ("AB  ", "y")]
    assert await pipeline.select("SELECT code FROM fact_sold") == [("AB  ",)]
    await require_equal(pipeline)


async def test_an_enum_can_be_joined_with_the_same_enum(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(
        """
        CREATE TYPE kind AS ENUM ('AB', 'C');
        CREATE TABLE code (code kind PRIMARY KEY, label text NOT NULL);
        CREATE TABLE item (id int PRIMARY KEY, code kind NOT NULL);
        CREATE TABLE sold (id int PRIMARY KEY, code kind NOT NULL REFERENCES code);
        INSERT INTO code VALUES ('AB', 'x'), ('C', 'y');
        INSERT INTO item VALUES (1, 'AB'), (2, 'C');
        INSERT INTO sold VALUES (1, 'AB');
        """
    )
    pipeline = empty.reading(BLANKS)
    await pipeline.run()
    await owner.execute("UPDATE code SET label = 'z' WHERE code = 'AB'")
    await pipeline.run(compare_keys=True)
    assert await pipeline.select("SELECT id, label FROM dim_item ORDER BY id") == [(1, "z"), (2, "y")]
    await require_equal(pipeline)


@pytest.mark.parametrize("kind", ["char(5)", "varchar(5)"])
async def test_partners_are_read_once_and_not_once_per_row(owner: asyncpg.Connection, kind: str) -> None:
    await owner.execute(
        f"""
        CREATE TABLE code (code {kind} PRIMARY KEY, label text NOT NULL);
        CREATE TABLE item (id int PRIMARY KEY, code {kind} NOT NULL);
        INSERT INTO code SELECT n, 'x' FROM generate_series(1, 1000) AS n;
        INSERT INTO item SELECT n, n % 1000 + 1 FROM generate_series(1, 5000) AS n;
        """
    )
    await owner.execute("ANALYZE code, item")
    horizon = await owner.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    (query,) = Selection(BLANKS, frozenset(), horizon, orphans=True).page(ITEM, within=KeyRange(), limit=100, byte_limit=10**6)
    (found,) = json.loads(await owner.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}"))
    reads = [node["Actual Loops"] for node in nodes(found["Plan"]) if node.get("Relation Name") == "code"]
    assert reads
    assert max(reads) == 1


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def test_a_page_with_many_blanks_in_its_references_is_not_taken_for_the_last(
    owner: asyncpg.Connection, empty: Pipeline
) -> None:
    """The blanks are bytes of the source that are not transferred."""
    await owner.execute(
        """
        CREATE TABLE code (code char(5) PRIMARY KEY, label text NOT NULL);
        CREATE TABLE item (id int PRIMARY KEY, code varchar(300) NOT NULL);
        CREATE TABLE sold (id int PRIMARY KEY, code text NOT NULL);
        INSERT INTO code VALUES ('AB', 'x');
        INSERT INTO item SELECT n, rpad('AB', 300) FROM generate_series(1, 1000) AS n;
        """
    )
    pipeline = replace(empty.reading(BLANKS), limits=BatchLimits(byte_count=60_000))
    await pipeline.run()
    assert await pipeline.select("SELECT count(*) FROM dim_item") == [(1000,)]


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        (
            f"{CITEXT} CREATE TABLE code (code citext PRIMARY KEY, label text)",
            "'code.code' is citext, which PostgreSQL does not compare by its text; a key, and what refers to one, must be text",
        ),
        (
            f"{CITEXT} ALTER TABLE item ALTER code TYPE citext; CREATE TABLE code (code text PRIMARY KEY, label text)",
            "'item.code' is citext, which PostgreSQL does not compare by its text",
        ),
        (
            'CREATE COLLATION "Loose" FROM "C"; CREATE TABLE code (code text COLLATE "Loose" PRIMARY KEY, label text)',
            "'code.code' has the collation \"Loose\", under which different texts are equal",
        ),
        (
            "CREATE TYPE kind AS ENUM ('x'); CREATE TABLE code (code kind PRIMARY KEY, label text)",
            "'item.code' is character varying, but the key of 'code' that it refers to is kind; give both one type",
        ),
        (
            "CREATE TABLE code (code char(3) PRIMARY KEY, label text); ALTER TABLE sold DROP id, ADD PRIMARY KEY (code)",
            "'sold.code' is character varying and a key, and is compared with the key of 'code' without blanks at the end",
        ),
    ],
)
async def test_texts_that_postgresql_compares_differently_are_refused(
    postgres_cluster: TestCluster, source_database: str, owner: asyncpg.Connection, empty: Pipeline, schema: str, sentence: str
) -> None:
    await owner.execute(
        "CREATE TABLE item (id int PRIMARY KEY, code varchar); CREATE TABLE sold (id int PRIMARY KEY, code varchar)"
    )
    await owner.execute(schema)
    superuser = await asyncpg.connect(postgres_cluster.url(source_database))
    # As CREATE COLLATION (provider = icu, deterministic = false) does, also where PostgreSQL is built without ICU.
    await superuser.execute("UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'Loose'")
    await superuser.close()
    keyed = replace(SOLD, key=("code",), columns=SOLD.columns[1:])
    by_code = of(CODE, keyed, star=(dimension_of(CODE), dimension_of(keyed, lookups=(Lookup("code", on=("code",)),))))
    contract = by_code if "'sold.code'" in sentence else of(CODE, ITEM, SOLD, star=BLANKS.warehouse_tables)
    with pytest.raises(SourceMismatchError) as caught:
        await empty.reading(contract).ingest()
    assert sentence in str(caught.value)
