"""Texts meet their keys as a foreign key of PostgreSQL meets them, or the pair is refused."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from contracts.column_types import INTEGER, TEXT
from contracts.origins import FromLookup, FromSource
from contracts.tables import Column, Contract, Lookup, TableKind, WarehouseTable
from shared.catalog import SourceMismatchError
from tests.integration.plain_star import dimension_of, of, require_equal, source_table
from tests.pipeline import Pipeline
from tests.postgres_cluster import TestCluster

CITEXT = "CREATE EXTENSION citext;"
CODE, ITEM = source_table("code", "code", code=TEXT, label=TEXT), source_table("item", "id", id=INTEGER, code=TEXT)
SOLD = source_table("sold", "id", id=INTEGER, code=TEXT)
BLANKS = of(
    CODE,
    ITEM,
    SOLD,
    star=(
        dimension_of(CODE),
        dimension_of(ITEM, Column("label", TEXT, FromLookup("code", "label")), lookups=(Lookup("code", on="code"),)),
        WarehouseTable(
            "fact_sold",
            TableKind.FACT,
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


async def test_blanks_that_a_foreign_key_heeds_are_heeded(owner: asyncpg.Connection, empty: Pipeline) -> None:
    """By PostgreSQL's `=` the reference of item 1 would meet both codes."""
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
async def test_texts_that_postgresql_compares_otherwise_are_refused(
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
    by_code = of(CODE, keyed, star=(dimension_of(CODE), dimension_of(keyed, lookups=(Lookup("code", on="code"),))))
    contract = by_code if "'sold.code'" in sentence else of(CODE, ITEM, SOLD, star=BLANKS.warehouse_tables)
    with pytest.raises(SourceMismatchError) as caught:
        await empty.reading(contract).ingest()
    assert sentence in str(caught.value)
