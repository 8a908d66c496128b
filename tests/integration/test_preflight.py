from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import asyncpg
import pytest

from contracts.warehouse import CREATE_OWN_TABLES
from infra.local.databases import LOADER, READER
from services.operator.local.preflight import check_source, check_warehouse, is_shaped_otherwise, require_schema
from shared.catalog import SourceMismatchError
from shared.errors import DependencyDownError, PermanentError
from shared.star_schema.schema import create_statements
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.totesys import CONTRACT


@pytest.fixture
def reader_url(postgres_cluster: TestCluster, source_database: str, source: asyncpg.Connection) -> str:
    return postgres_cluster.url(source_database, READER)


@pytest.fixture
def warehouse_url(postgres_cluster: TestCluster, warehouse_database: str) -> str:
    return postgres_cluster.url(warehouse_database, LOADER)


async def test_the_documented_privileges_are_sufficient(reader_url: str, warehouse_url: str) -> None:
    await check_source(reader_url, CONTRACT)
    await check_warehouse(warehouse_url, CONTRACT)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ("DROP TABLE payment", "schema 'public' lacks table 'payment' required by contract 'totesys'"),
        ("ALTER TABLE design DROP design_name", "table 'design' lacks column 'design_name' required by contract 'totesys'"),
        ("ALTER TABLE design ALTER design_name TYPE bytea USING NULL", "column 'design.design_name' is bytea, not text"),
        ("ALTER TABLE payment ALTER payment_amount TYPE numeric(11, 2)", r"is numeric\(11,2\), not numeric\(10, ?2\)"),
        (f"REVOKE SELECT ON staff FROM {READER}", "no privilege to read table 'staff'; grant SELECT on it to the role"),
    ],
)
async def test_a_source_that_does_not_match_is_reported_with_table_and_column(
    mistake: str, expected: str, source: asyncpg.Connection, reader_url: str
) -> None:
    await source.execute(mistake)
    with pytest.raises(SourceMismatchError, match=expected):
        await check_source(reader_url, CONTRACT)


async def test_a_wrong_password_and_a_missing_database_are_reported(reader_url: str) -> None:
    with pytest.raises(DependencyDownError, match="the source database refuses the user or the password; correct its URL"):
        await check_source(reader_url.replace(READER, "nobody"), CONTRACT)
    with pytest.raises(DependencyDownError, match="the source database does not exist on its server"):
        await check_source(f"{reader_url}_nowhere", CONTRACT)


async def test_a_warehouse_role_must_be_allowed_to_create_schemas(reader_url: str) -> None:
    with pytest.raises(PermanentError, match="the warehouse role may not create schemas; GRANT CREATE ON DATABASE"):
        await check_warehouse(reader_url, CONTRACT)


async def test_a_warehouse_role_must_be_allowed_to_create_tables(
    postgres_cluster: TestCluster, source_database: str, source: asyncpg.Connection, reader_url: str
) -> None:
    await source.execute(f'GRANT CREATE ON DATABASE "{source_database}" TO {READER}')
    with pytest.raises(PermanentError, match="the warehouse role may not create tables; GRANT CREATE ON SCHEMA public"):
        await check_warehouse(reader_url, CONTRACT)


async def test_a_warehouse_role_must_be_allowed_to_create_temporary_tables(
    source_database: str, source: asyncpg.Connection, reader_url: str
) -> None:
    await source.execute(f'GRANT CREATE ON DATABASE "{source_database}" TO {READER}; GRANT CREATE ON SCHEMA public TO {READER}')
    with pytest.raises(PermanentError, match="may not create temporary tables; GRANT TEMPORARY ON DATABASE"):
        await check_warehouse(reader_url, CONTRACT)
    await source.execute(f'GRANT TEMPORARY ON DATABASE "{source_database}" TO {READER}')
    await check_warehouse(reader_url, CONTRACT)


async def test_tables_that_starlift_did_not_create_are_named(warehouse_url: str) -> None:
    connection = await asyncpg.connect(warehouse_url)
    try:
        for statement in create_statements(CONTRACT, CONTRACT.warehouse_tables):
            await connection.execute(statement)
        await check_warehouse(warehouse_url, CONTRACT)
        await connection.execute(
            "ALTER TABLE dim_staff DROP _run; DROP TABLE dim_date; CREATE VIEW dim_date AS SELECT 1 AS one"
        )
    finally:
        await connection.close()
    with pytest.raises(PermanentError, match=r"did not create \(dim_date, dim_staff: no column '_run'\); move them away, or"):
        await check_warehouse(warehouse_url, CONTRACT)


async def test_a_star_that_cannot_be_migrated_is_refused_with_the_loader_s_error(warehouse_url: str) -> None:
    environment = {
        **os.environ,
        "STARLIFT_REGION": "eu-west-2",
        "STARLIFT_QUEUE_URL": "http://127.0.0.1:9/loading",
        "STARLIFT_DEAD_LETTER_URL": "http://127.0.0.1:9/loading-dlq",
        "STARLIFT_LANDING_BUCKET": "landing",
        "STARLIFT_PROCESSED_BUCKET": "processed",
        "STARLIFT_SLOTS": "1",
        "STARLIFT_HANDLER_LIMIT_S": "60",
        "STARLIFT_WAREHOUSE_URL": warehouse_url,
    }
    assert not await is_shaped_otherwise(warehouse_url, CONTRACT)
    connection = await asyncpg.connect(warehouse_url)
    try:
        for statement in (CREATE_OWN_TABLES, *create_statements(CONTRACT, CONTRACT.warehouse_tables)):
            await connection.execute(statement)
        await connection.execute(f"INSERT INTO starlift.contract VALUES ('{CONTRACT.name}', '{CONTRACT.fingerprint}')")
        assert not await is_shaped_otherwise(warehouse_url, CONTRACT)
        await connection.execute(
            """
            UPDATE starlift.contract SET fingerprint = 'another';
            DROP VIEW fact_sales_order_current;
            ALTER TABLE fact_sales_order ALTER COLUMN unit_price TYPE numeric(5, 2);
            CREATE VIEW report AS SELECT unit_price FROM fact_sales_order;
            """
        )
        assert await is_shaped_otherwise(warehouse_url, CONTRACT)
        with pytest.raises(PermanentError, match=r"migrated to contract .*: view report on fact_sales_order\.unit_price;"):
            await asyncio.to_thread(require_schema, environment)
        await connection.execute("DROP VIEW report")
        await asyncio.to_thread(require_schema, environment)
    finally:
        await connection.close()


@pytest.mark.parametrize("check", [check_source, check_warehouse])
async def test_a_server_that_is_too_old_is_reported(
    check: Callable[..., object], reader_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.operator.local.preflight.VERSION_MINIMUM", 99)
    with pytest.raises(PermanentError, match=r"is PostgreSQL 1\d; Starlift needs 99 or newer"):
        await check(reader_url, CONTRACT)  # type: ignore[misc]
