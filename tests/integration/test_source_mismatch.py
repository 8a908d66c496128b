from __future__ import annotations

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from contracts.messages import Mode
from infra.local.databases import LOADER, READER, SOURCE_OWNER, execute
from shared.catalog import SourceMismatchError, read_catalog
from shared.errors import PermanentError
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.totesys import CONTRACT

pytestmark = begins_with(filled_totesys(orders=20))
ELSEWHERE = "SERVER elsewhere OPTIONS (table_name 'payment_there')"
GRANT = "grant SELECT on it to the role that Starlift uses (`starlift grants source`)"
REMEDY = "required by contract 'totesys'; restore it or change the contract"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("DROP TABLE payment", f"schema 'public' lacks table 'payment' {REMEDY}"),
        ("ALTER TABLE payment RENAME TO payments", f"schema 'public' lacks table 'payment' {REMEDY}"),
        ("ALTER TABLE sales_order DROP COLUMN unit_price", f"table 'sales_order' lacks column 'unit_price' {REMEDY}"),
        ("ALTER TABLE staff RENAME first_name TO given_name", f"table 'staff' lacks column 'first_name' {REMEDY}"),
        (
            "ALTER TABLE payment ALTER payment_amount TYPE numeric(12, 4)",
            f"column 'payment.payment_amount' is numeric(12,4), not numeric(10,2) as {REMEDY} to verbatim('numeric(12,4)')",
        ),
        (
            "ALTER TABLE payment ALTER payment_amount TYPE double precision",
            f"column 'payment.payment_amount' is double precision, not numeric(10,2) as {REMEDY}",
        ),
        (
            "ALTER TABLE sales_order ALTER units_sold TYPE bigint",
            f"column 'sales_order.units_sold' is bigint, not integer as {REMEDY}",
        ),
        (
            "ALTER TABLE payment ALTER created_at TYPE timestamptz",
            f"column 'payment.created_at' is timestamp with time zone, not timestamp as {REMEDY}",
        ),
        (
            "ALTER TABLE sales_order ALTER agreed_payment_date TYPE date USING agreed_payment_date::date",
            f"column 'sales_order.agreed_payment_date' is date, not text as {REMEDY}",
        ),
        (
            f"REVOKE SELECT ON payment FROM {READER}",
            f"no privilege to read table 'payment'; {GRANT}",
        ),
    ],
)
async def test_a_source_that_no_longer_matches_stops_the_run_with_one_sentence(
    filled: asyncpg.Connection, pipeline: Pipeline, change: str, sentence: str
) -> None:
    await filled.execute(change)
    with pytest.raises(SourceMismatchError, match=f"^{re.escape(sentence)}$"):
        await pipeline.ingest()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("DROP TABLE payment", f"schema 'public' lacks table 'payment' {REMEDY}"),
        ("ALTER TABLE staff DROP COLUMN email_address", f"table 'staff' lacks column 'email_address' {REMEDY}"),
    ],
)
async def test_a_drop_just_after_the_snapshot_is_not_reported_as_a_missing_privilege(
    filled: asyncpg.Connection, pipeline: Pipeline, change: str, sentence: str
) -> None:
    async with pipeline.source.connection() as reader, reader.transaction(isolation="repeatable_read", readonly=True):
        await reader.fetchval("SELECT pg_current_snapshot()")
        await filled.execute(change)
        with pytest.raises(SourceMismatchError, match=f"^{re.escape(sentence)}$"):
            await read_catalog(reader, CONTRACT)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE payment ALTER payment_amount TYPE numeric(8, 2)",
        "ALTER TABLE payment ALTER payment_amount TYPE numeric",
        "ALTER TABLE payment ALTER payment_amount TYPE numeric(9, 1)",
        "ALTER TABLE sales_order ALTER units_sold TYPE smallint USING (units_sold % 30000)::smallint",
        "ALTER TABLE payment_type ALTER payment_type_name TYPE text",
        "ALTER TABLE staff ALTER first_name TYPE varchar(200)",
        "ALTER TABLE design ALTER created_at TYPE timestamp(6)",
        "ALTER TABLE design ADD COLUMN colour text",
        "CREATE TABLE colour (colour_id int)",
    ],
)
async def test_a_source_with_changed_types_whose_values_still_fit_is_read(
    filled: asyncpg.Connection, pipeline: Pipeline, change: str
) -> None:
    await filled.execute("UPDATE payment SET payment_amount = 1.5")
    await filled.execute(change)
    await pipeline.run()
    assert (await pipeline.verify()).is_equal


@begins_with(loaded_totesys(orders=20))
async def test_a_mismatch_keeps_the_horizon_and_loses_nothing_once_repaired(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    before = pipeline.checkpoint()
    await filled.execute("ALTER TABLE staff RENAME first_name TO given_name")
    await filled.execute("UPDATE staff SET given_name = 'Ada' WHERE staff_id = 1")
    with pytest.raises(SourceMismatchError):
        await pipeline.ingest()
    assert pipeline.checkpoint() == before
    await filled.execute("ALTER TABLE staff RENAME given_name TO first_name")
    await pipeline.run()
    assert (await pipeline.verify()).is_equal


async def test_ingestion_needs_only_select(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    async with pipeline.source.connection() as reader:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute("UPDATE staff SET first_name = 'x'")
        assert await reader.fetchval("SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole") == 0
    await pipeline.run()
    await filled.execute("UPDATE staff SET first_name = 'Ada' WHERE staff_id = 1")
    await pipeline.run()
    await pipeline.run(Mode.FULL)
    assert (await pipeline.verify()).is_equal


@pytest.fixture
async def barred(
    postgres_cluster: TestCluster, source_database: str, warehouse_database: str, source: asyncpg.Connection
) -> AsyncIterator[Pipeline]:
    """A role that may connect, and not even enter the schema."""
    role = f"barred_{source_database}"
    execute(
        postgres_cluster.url(),
        f"CREATE ROLE {role} LOGIN PASSWORD '{postgres_cluster.password(role)}'",
        f'GRANT CONNECT ON DATABASE "{source_database}" TO {role}',
    )
    urls = postgres_cluster.url(source_database, role), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(*urls) as pipeline:
        yield pipeline
    execute(postgres_cluster.url(), f'REVOKE CONNECT ON DATABASE "{source_database}" FROM {role}', f"DROP ROLE {role}")


async def test_a_role_without_privileges_gets_an_error_with_the_grants_needed(barred: Pipeline) -> None:
    with pytest.raises(PermanentError) as caught:
        await barred.ingest()
    first, second, *_, last = str(caught.value).split("; no ")
    assert (
        first
        == "no privilege to use schema 'public'; grant USAGE on it to the role that Starlift uses (`starlift grants source`)"
    )
    assert (
        second
        == "privilege to read table 'currency'; grant SELECT on it to the role that Starlift uses (`starlift grants source`)"
    )
    assert last.endswith("; 2 more problems, which `starlift plan` lists")


async def test_several_mismatches_are_reported_at_once(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("ALTER TABLE staff RENAME first_name TO given_name; DROP TABLE payment")
    with pytest.raises(SourceMismatchError) as caught:
        await pipeline.ingest()
    assert str(caught.value) == (
        f"table 'staff' lacks column 'first_name' {REMEDY}; schema 'public' lacks table 'payment' {REMEDY}"
    )


async def test_a_key_without_a_unique_index_is_refused(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    await source.execute("ALTER TABLE payment DROP CONSTRAINT payment_pkey")
    with pytest.raises(SourceMismatchError, match=r"table 'payment' has no unique index on its key \(payment_id\), NOT NULL"):
        await pipeline.ingest()


async def test_a_key_whose_index_includes_other_columns_is_accepted(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("ALTER TABLE payment DROP CONSTRAINT payment_pkey, ADD PRIMARY KEY (payment_id) INCLUDE (paid)")
    await pipeline.run()
    assert (await pipeline.verify()).is_equal


@pytest.fixture
def elsewhere(postgres_cluster: TestCluster, source_database: str) -> None:
    """A foreign server that the application and the reader may use: the database itself."""
    mapping = f"SERVER elsewhere OPTIONS (user '{READER}', password '{postgres_cluster.password(READER)}')"
    execute(
        postgres_cluster.url(source_database),
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw "
        f"OPTIONS (host '127.0.0.1', port '{postgres_cluster.port}', dbname '{source_database}')",
        f"GRANT USAGE ON FOREIGN SERVER elsewhere TO {SOURCE_OWNER}",
        f"CREATE USER MAPPING FOR {READER} {mapping}",
    )


@pytest.mark.parametrize(
    "statements",
    [
        (
            "ALTER TABLE payment RENAME TO payment_there",
            "CREATE TABLE payment (LIKE payment_there) PARTITION BY RANGE (payment_id)",
            f"CREATE FOREIGN TABLE old PARTITION OF payment FOR VALUES FROM (1) TO (1000) {ELSEWHERE}",
        ),
        (
            "CREATE TABLE payment_there AS TABLE payment",
            "TRUNCATE payment",
            f"CREATE FOREIGN TABLE old () INHERITS (payment) {ELSEWHERE}",
        ),
    ],
    ids=["a partition", "an heir"],
)
@pytest.mark.usefixtures("elsewhere")
async def test_a_foreign_table_below_a_table_is_refused(
    filled: asyncpg.Connection, pipeline: Pipeline, statements: tuple[str, ...]
) -> None:
    for statement in statements:
        await filled.execute(statement)
    sentence = (
        "table 'payment' has foreign tables below it (public.old), whose rows have no transaction ids: changes there would "
        "never be read; detach them or make them tables of the source"
    )
    with pytest.raises(SourceMismatchError, match=f"^{re.escape(sentence)}$"):
        await pipeline.ingest()
