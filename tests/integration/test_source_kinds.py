"""The kinds of table, the encodings and the column privileges that a source may have."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import asyncpg
import pytest
from structlog.testing import capture_logs

from contracts.column_types import INTEGER, TEXT
from contracts.contract import Contract
from contracts.messages import BatchIngested
from contracts.origins import FromLookup, FromSource
from contracts.tables import Column, Dimension, Drift, Lookup, SourceColumn, SourceTable
from infra.local.databases import LOADER, READER, SOURCE_OWNER, execute
from services.operator.local.totesys.fill import connect
from shared.catalog import SourceMismatchError
from shared.errors import PermanentError
from tests.fixtures.pipeline import Pipeline, landed_bodies, open_pipeline, tables_read
from tests.fixtures.plans import problems_of
from tests.fixtures.postgres_cluster import TestCluster

NAMED = (SourceColumn("id", INTEGER), SourceColumn("name", TEXT))
STAR = (Column("id", INTEGER, FromSource("id")), Column("name", TEXT, FromSource("name")))


def contract_of(name: str) -> Contract:
    """A dimension of the source table `name`, which has an id and a name."""
    star = Dimension("dim_thing", ("id",), STAR, source=name)
    return Contract("things", "public", "public", (SourceTable(name, ("id",), NAMED),), (star,))


NO_VERSIONS = (
    "no transaction id of its rows shows what changed; write `full: true` beside its `key` in the contract's part `source`, "
    "and every run reads all of it, or read the tables below it"
)
HEIRS = (
    "table 'vehicle' has tables that inherit from it (public.truck), which its key does not cover; detach them "
    "(ALTER TABLE … NO INHERIT vehicle) and read them as tables of their own"
)
TEST_KINDS = """
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL);
CREATE VIEW v AS SELECT id, name FROM customer;
CREATE MATERIALIZED VIEW mv AS SELECT id, name FROM customer;
CREATE TABLE vehicle (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE truck (load int) INHERITS (vehicle);
CREATE TABLE parcel (id int PRIMARY KEY, name text NOT NULL) PARTITION BY RANGE (id);
CREATE TABLE parcel_1 PARTITION OF parcel FOR VALUES FROM (1) TO (10);
INSERT INTO parcel VALUES (1, 'small');
"""


@pytest.fixture
async def things(source_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of the application, in a database with a table of each kind."""
    connection = await connect(source_url)
    await connection.execute(TEST_KINDS)
    yield connection
    await connection.close()


@pytest.mark.usefixtures("things")
async def test_a_view_or_an_inheritance_parent_is_refused_and_a_partitioned_table_is_read(
    pipeline: Pipeline, postgres_cluster: TestCluster, source_database: str
) -> None:
    refused = {
        "v": f"'v' is a view: {NO_VERSIONS}",
        "mv": f"'mv' is a materialized view: {NO_VERSIONS}",
        "vehicle": HEIRS,
    }
    for name, sentence in refused.items():
        expected = f"^{re.escape(sentence)}$"
        with pytest.raises(SourceMismatchError, match=expected):
            await pipeline.reading(contract_of(name)).ingest()
        url = postgres_cluster.url(source_database, READER)
        assert await problems_of(contract_of(name), source=url) == [sentence]
    parcels = pipeline.reading(contract_of("parcel"))
    await parcels.run()
    assert await parcels.select("SELECT id, name FROM dim_thing") == [(1, "small")]
    assert (await parcels.verify()).is_equal


# --- encodings -----------------------------------------------------------------------------------------------------


@pytest.fixture
def encoded_database(postgres_cluster: TestCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a database of another encoding, whose customer 1 has a name that UTF-8 can't hold."""
    name = f"test_{request.param.lower()}"
    encoded = f"ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    execute(postgres_cluster.url(), f"CREATE DATABASE {name} OWNER {SOURCE_OWNER} {encoded}")
    execute(
        postgres_cluster.url(name, SOURCE_OWNER),
        "CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL)",
        "INSERT INTO customer VALUES (1, convert_from('\\x81', getdatabaseencoding())), (2, 'ok')",
    )
    yield name
    postgres_cluster.drop_database(name)


@pytest.mark.parametrize(
    ("encoded_database", "sentence"),
    [
        ("SQL_ASCII", "the source database's encoding is SQL_ASCII, .*; copy it into a database of encoding UTF8 "),
        ("WIN1252", "a text of table 'customer' has no equivalent in UTF-8 .*; correct it at the source, then replay"),
    ],
    indirect=["encoded_database"],
)
async def test_a_text_without_a_utf_8_equivalent_stops_the_run_and_is_located(
    postgres_cluster: TestCluster, encoded_database: str, warehouse_database: str, sentence: str
) -> None:
    urls = postgres_cluster.url(encoded_database, SOURCE_OWNER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(*urls, contract=contract_of("customer")) as pipeline:
        with pytest.raises(PermanentError, match=f"^{sentence}"):
            await pipeline.ingest()


@pytest.mark.parametrize("encoded_database", ["SQL_ASCII"], indirect=True)
async def test_a_source_without_an_encoding_is_reported_by_the_plan(
    postgres_cluster: TestCluster, encoded_database: str
) -> None:
    (problem,) = await problems_of(contract_of("customer"), source=postgres_cluster.url(encoded_database, SOURCE_OWNER))
    assert problem.startswith("the source database's encoding is SQL_ASCII")


# --- privileges on columns -----------------------------------------------------------------------------------------

CITY = SourceTable("city", ("city_id",), (SourceColumn("city_id", INTEGER), SourceColumn("city_name", TEXT)))
CUSTOMER = SourceTable(
    "customer",
    ("customer_id",),
    (
        SourceColumn("customer_id", INTEGER),
        SourceColumn("full_name", TEXT),
        SourceColumn("city_id", INTEGER, nullable=True),
    ),
)
DIM_CUSTOMER = Dimension(
    "dim_customer",
    ("customer_id",),
    (
        Column("customer_id", INTEGER, FromSource("customer_id")),
        Column("full_name", TEXT, FromSource("full_name")),
        Column("city", TEXT, FromLookup("city", "city_name"), nullable=True),
    ),
    source="customer",
    lookups=(Lookup("city", on=("city_id",)),),
)
SHOP = Contract("shop", "public", "public", (CITY, replace(CUSTOMER, drift=Drift.CARRY)), (DIM_CUSTOMER,))
SHOP_SCHEMA = f"""
CREATE TABLE city (city_id int PRIMARY KEY, city_name text NOT NULL);
CREATE TABLE customer (
    customer_id int PRIMARY KEY, full_name text NOT NULL, city_id int REFERENCES city,
    password_hash text DEFAULT 'secret', nickname text DEFAULT 'known'
);
INSERT INTO city VALUES (1, 'York'), (2, 'Bath');
INSERT INTO customer VALUES (1, 'Ada', 1), (2, 'Grace', 2), (3, 'Mary', NULL);
REVOKE SELECT ON city, customer FROM {READER};
GRANT SELECT (city_id, city_name) ON city TO {READER};
GRANT SELECT (customer_id, full_name, city_id, nickname) ON customer TO {READER};
"""


@pytest.fixture
async def shop(source_url: str, pipeline: Pipeline) -> AsyncIterator[tuple[asyncpg.Connection, Pipeline]]:
    """A session of the application, and a pipeline whose role may read some columns."""
    connection = await connect(source_url)
    await connection.execute(SHOP_SCHEMA)
    yield connection, pipeline.reading(SHOP)
    await connection.close()


async def changed(shop: tuple[asyncpg.Connection, Pipeline]) -> list[BatchIngested]:
    """The rows read by the run after a changed row, a changed partner and a deleted row; the star is then equal."""
    source, pipeline = shop
    await source.execute("UPDATE customer SET full_name = full_name || '!' WHERE customer_id = 1")
    await source.execute("UPDATE city SET city_name = city_name || '!' WHERE city_id = 2")
    messages = await pipeline.ingest()
    await pipeline.load(*[await pipeline.remodel(message) for message in messages])
    assert (await pipeline.verify()).is_equal
    return messages


async def test_privileges_on_the_columns_of_the_contract_are_enough(shop: tuple[asyncpg.Connection, Pipeline]) -> None:
    source, pipeline = shop
    with capture_logs() as logs:
        await pipeline.run()
    events = {(entry["event"], entry["table"]): entry for entry in logs if "table" in entry}
    assert set(events) == {
        ("new_columns", "customer"),
        ("row_versions_unreadable", "customer"),
        ("row_versions_unreadable", "city"),
    }
    new = events["new_columns", "customer"]
    assert (new["columns"], new["carried"]) == (("password_hash text", "nickname text"), ("nickname",))
    assert (await pipeline.verify()).is_equal
    with capture_logs() as logs:
        messages = await changed(shop)
    assert tables_read(messages) == {"city": 2, "customer": 3}, "without transaction ids everything is read"
    assert [entry for entry in logs if "table" in entry] == [], "and said once"
    assert await pipeline.select("SELECT full_name, city FROM dim_customer ORDER BY customer_id") == [
        ("Ada!", "York"),
        ("Grace", "Bath!"),
        ("Mary", None),
    ]
    await source.execute("DELETE FROM customer WHERE customer_id = 3")
    await pipeline.run()
    assert await pipeline.select("SELECT customer_id FROM dim_customer WHERE _deleted_at IS NOT NULL") == [(3,)]
    assert not any(b"password_hash" in body for body in landed_bodies(pipeline, messages))


async def test_a_lost_row_is_found_without_the_privilege_on_transaction_ids(
    shop: tuple[asyncpg.Connection, Pipeline],
) -> None:
    _, pipeline = shop
    await pipeline.run()
    await pipeline.select("DELETE FROM dim_customer WHERE customer_id = 1")
    verdict = await pipeline.verify()
    assert verdict.in_flight + verdict.stuck == 1, "not equal without a word"
    await pipeline.run()
    assert await pipeline.select("SELECT full_name FROM dim_customer WHERE customer_id = 1") == [("Ada",)]
    assert (await pipeline.verify()).is_equal


async def test_with_a_privilege_on_xmin_only_changes_are_read(shop: tuple[asyncpg.Connection, Pipeline]) -> None:
    source, pipeline = shop
    await source.execute(f"GRANT SELECT (xmin) ON city, customer TO {READER}")
    await pipeline.run()
    assert tables_read(await changed(shop)) == {"city": 1, "customer": 2}


async def test_an_unreadable_column_of_the_contract_is_refused_by_name(
    shop: tuple[asyncpg.Connection, Pipeline],
) -> None:
    source, pipeline = shop
    await pipeline.run()
    await source.execute(f"REVOKE SELECT (full_name) ON customer FROM {READER}")
    with pytest.raises(
        SourceMismatchError,
        match=r"^no privilege to read column 'customer\.full_name'; grant SELECT \(full_name\) ON customer to the role",
    ):
        await pipeline.ingest()
