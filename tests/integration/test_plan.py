"""`starlift plan` on real databases: every problem at once, what migrating then changes, and nothing touched."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from contracts.warehouse import CREATE_OWN_TABLES, OWN_SCHEMA
from contracts.yaml_text import read_contract
from infra.local.databases import READER, execute
from services.loading.migrate import migrate_schema
from shared.star_schema.evolution import SchemaNotReadyError
from shared.star_schema.schema import create_schema, create_statements
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.plans import plan_for, problems_of
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import SHOP
from tests.fixtures.totesys import CONTRACT
from tests.integration.test_planned_changes import catalog

REMEDY = "required by contract 'totesys'; restore it or change the contract"
UNREADABLE = (
    "no privilege to read column '{table}.{column}'; grant SELECT ({column}) ON {table} to the role that Starlift uses "
    "(`starlift grants source`), or leave the column out of the contract"
)
IN_THE_WAY = (
    "the warehouse can't be migrated to contract 'totesys' while other objects depend on columns that have to change: view "
    "report on fact_sales_order.unit_price; drop them, and create them again once the loader has continued by itself"
)
IS_A_VIEW = (
    "'v' is a view: no transaction id of its rows shows what changed; write `full: true` beside its `key` in the contract's "
    "part `source`, and every run reads all of it, or read the tables below it"
)
LACKS_TYPE = (
    """the warehouse lacks types that contract 'case' takes verbatim: "Role"[] (dim_t.roles); create them there, or declare """
    "the columns TEXT"
)


@pytest.fixture
def reader_url(postgres_cluster: TestCluster, source_database: str, source: asyncpg.Connection) -> str:
    return postgres_cluster.url(source_database, READER)


@pytest.fixture
async def warehouse(warehouse_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(warehouse_url)
    yield connection
    await connection.close()


# --- the source ------------------------------------------------------------------------------------------------------


async def test_a_plan_does_not_wait_for_a_session_that_locks_a_source_table(
    reader_url: str, source: asyncpg.Connection
) -> None:
    """As a long ALTER TABLE does; `starlift up` plans before it starts anything."""
    async with source.transaction():
        await source.execute("LOCK TABLE staff")
        (problem,) = (await plan_for(CONTRACT, source=reader_url)).problems
    assert problem.is_unreachable
    assert problem.text == (
        "another session of the source database holds a lock (canceling statement due to lock timeout); try again once it has "
        "ended"
    )


async def test_the_documented_privileges_are_sufficient(reader_url: str, warehouse_url: str) -> None:
    plan = await plan_for(CONTRACT, source=reader_url, warehouse=warehouse_url)
    assert plan.problems == ()
    assert [table.table for table in plan.reads] == [table.name for table in CONTRACT.source_tables]
    assert plan.has_changes


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ("DROP TABLE payment", "schema 'public' lacks table 'payment' required by contract 'totesys'"),
        ("ALTER TABLE design DROP design_name", "table 'design' lacks column 'design_name' required by contract 'totesys'"),
        ("ALTER TABLE design ALTER design_name TYPE bytea USING NULL", "column 'design.design_name' is bytea, not text"),
        ("ALTER TABLE payment ALTER payment_amount TYPE numeric(11, 2)", "is numeric(11,2), not numeric(10,2)"),
        (f"REVOKE SELECT ON staff FROM {READER}", "no privilege to read table 'staff'; grant SELECT on it to the role"),
        (f"REVOKE USAGE ON SCHEMA public FROM {READER}", "no privilege to use schema 'public'; grant USAGE on it to the role"),
    ],
)
async def test_a_source_that_does_not_match_is_reported_with_table_and_column(
    mistake: str, expected: str, source: asyncpg.Connection, reader_url: str
) -> None:
    await source.execute(mistake)
    (problem,) = await problems_of(CONTRACT, source=reader_url)
    assert expected in problem


async def test_four_mismatches_of_a_source_are_four_problems(source: asyncpg.Connection, reader_url: str) -> None:
    await source.execute(
        f"""
        DROP TABLE payment;
        ALTER TABLE design DROP design_name;
        ALTER TABLE sales_order ALTER units_sold TYPE bigint;
        REVOKE SELECT (email_address) ON staff FROM {READER};
        REVOKE SELECT ON staff FROM {READER};
        GRANT SELECT (staff_id, first_name, last_name, department_id) ON staff TO {READER};
        """
    )
    before = await catalog(source)
    assert await problems_of(CONTRACT, source=reader_url) == [
        f"table 'design' lacks column 'design_name' {REMEDY}",
        UNREADABLE.format(table="staff", column="email_address"),
        f"column 'sales_order.units_sold' is bigint, not integer as {REMEDY}",
        f"schema 'public' lacks table 'payment' {REMEDY}",
    ]
    assert await catalog(source) == before


async def test_databases_that_do_not_answer_are_reported_both(reader_url: str, warehouse_url: str) -> None:
    plan = await plan_for(CONTRACT, source=reader_url.replace(READER, "nobody"), warehouse=f"{warehouse_url}_nowhere")
    assert [(problem.part, problem.is_unreachable) for problem in plan.problems] == [("source", True), ("warehouse", True)]
    assert plan.problems[0].text.startswith("the source database refuses the user or the password; correct its URL")
    assert plan.problems[1].text.startswith("the warehouse database does not exist on its server")


async def test_new_columns_and_estimates_are_reported(source: asyncpg.Connection, reader_url: str) -> None:
    await source.execute(
        f"""
        ALTER TABLE design ADD colour text, ADD weight numeric(6, 2);
        INSERT INTO design (design_name, file_location, file_name, last_updated)
        SELECT 'a', 'b', n, now() FROM generate_series(1, 7400) AS n;
        ANALYZE design;
        REVOKE SELECT ON currency FROM {READER};
        GRANT SELECT (currency_id, currency_code) ON currency TO {READER};
        """
    )
    plan = await plan_for(CONTRACT, source=reader_url)
    assert plan.problems == ()
    reads = {table.table: table for table in plan.reads}
    design = reads["design"]
    assert design.new_columns == {"colour": "text", "weight": "numeric(6,2)"}
    assert (design.rows, design.seconds, design.is_analysed, design.in_full_every_run) == (7400, 0.1, True, False)
    assert design.bytes > 2**16
    assert reads["currency"].in_full_every_run, "the role may not read xmin"
    assert reads["staff"].new_columns == {}


@pytest.mark.parametrize("part", ["source", "warehouse"])
async def test_a_server_that_is_too_old_is_reported(part: str, reader_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.operator.contract.plan.VERSION_MINIMUM", 99)
    (problem,) = await problems_of(CONTRACT, **{part: reader_url})
    assert re.fullmatch(rf"the {part} is PostgreSQL 1\d; Starlift needs 99 or newer", problem)


# --- the warehouse ---------------------------------------------------------------------------------------------------


async def test_a_warehouse_role_needs_three_privileges(
    source_database: str, source: asyncpg.Connection, reader_url: str
) -> None:
    assert await problems_of(CONTRACT, warehouse=reader_url) == [
        "the warehouse role may not create schemas; GRANT CREATE ON DATABASE … to it (`starlift grants warehouse`)",
        "the warehouse role may not create tables; GRANT CREATE ON SCHEMA public to it (`starlift grants warehouse`)",
        "the warehouse role may not create temporary tables; GRANT TEMPORARY ON DATABASE … to it (`starlift grants warehouse`)",
    ]
    await source.execute(
        f'GRANT CREATE, TEMPORARY ON DATABASE "{source_database}" TO {READER}; GRANT CREATE ON SCHEMA public TO {READER}'
    )
    assert await problems_of(CONTRACT, warehouse=reader_url) == []


async def test_tables_that_starlift_did_not_create_are_named(warehouse: asyncpg.Connection, warehouse_url: str) -> None:
    for statement in create_statements(CONTRACT, CONTRACT.warehouse_tables):
        await warehouse.execute(statement)
    assert await problems_of(CONTRACT, warehouse=warehouse_url) == []
    await warehouse.execute("ALTER TABLE dim_staff DROP _run; DROP TABLE dim_date; CREATE VIEW dim_date AS SELECT 1 AS one")
    (problem,) = await problems_of(CONTRACT, warehouse=warehouse_url)
    assert "did not create (dim_date, dim_staff: no column '_run'); move them away, or" in problem


async def test_every_obstacle_of_a_star_is_reported_in_the_loader_s_words(
    warehouse: asyncpg.Connection, warehouse_url: str, pipeline: Pipeline
) -> None:
    for statement in (create_schema(OWN_SCHEMA), CREATE_OWN_TABLES, *create_statements(CONTRACT, CONTRACT.warehouse_tables)):
        await warehouse.execute(statement)
    await warehouse.execute(
        """
        ALTER TABLE fact_sales_order ALTER COLUMN unit_price TYPE numeric(5, 2), ALTER COLUMN units_sold TYPE text;
        ALTER TABLE dim_staff ALTER COLUMN first_name TYPE integer USING 1;
        CREATE VIEW report AS SELECT unit_price FROM fact_sales_order;
        """
    )
    found = await problems_of(CONTRACT, warehouse=warehouse_url)
    assert [sentence.partition(" which may")[0] for sentence in found] == [
        IN_THE_WAY,
        "column 'first_name' of the warehouse's 'dim_staff' is integer and should be varchar,",
        "column 'units_sold' of the warehouse's 'fact_sales_order' is text and should be integer,",
    ]
    with pytest.raises(SchemaNotReadyError) as caught:
        await migrate_schema(pipeline.warehouse, CONTRACT)
    assert str(caught.value).endswith("; ".join(found))


async def test_the_star_of_another_contract_is_not_overwritten(
    warehouse: asyncpg.Connection, warehouse_url: str, pipeline: Pipeline
) -> None:
    await migrate_schema(pipeline.warehouse, SHOP)
    (problem,) = await problems_of(CONTRACT, warehouse=warehouse_url)
    assert problem.startswith(
        "schema 'starlift' of the warehouse holds the ledger of another star, that of contract 'shop'; give contract 'totesys' "
        "a `ledger_schema` of its own"
    )


# --- cases that users had --------------------------------------------------------------------------------------------

PARTLY_READABLE = (
    f"CREATE TABLE customer (id int PRIMARY KEY, name text, secret text); REVOKE SELECT ON customer FROM {READER}; "
    f"GRANT SELECT ({{}}) ON customer TO {READER}"
)
CASES = {
    "a column called _defect": (
        "CREATE TABLE t (id int PRIMARY KEY, _defect text); INSERT INTO t VALUES (1, 'w');",
        "t: {key: id, columns: {id: integer not null, _defect: text}}",
        "dim_t: {dimension: t, columns: {id: , flaw: _defect}}",
        [],
    ),
    "a view": (
        "CREATE TABLE customer (id int PRIMARY KEY, name text); CREATE VIEW v AS SELECT id, name FROM customer;",
        "v: {key: id, columns: {id: integer not null, name: text}}",
        "dim_v: {dimension: v, columns: {id: , name: }}",
        [IS_A_VIEW],
    ),
    "SELECT on some columns": (
        PARTLY_READABLE.format("id, name"),
        "customer: {key: id, columns: {id: integer not null, name: text, secret: text}}",
        "dim_customer: {dimension: customer, columns: {id: , name: }}",
        [],
    ),
    "SELECT on too few columns": (
        PARTLY_READABLE.format("id"),
        "customer: {key: id, columns: {id: integer not null, name: text, secret: text}}",
        "dim_customer: {dimension: customer, columns: {id: , name: }}",
        [UNREADABLE.format(table="customer", column="name")],
    ),
    "types of other schemas": (
        """CREATE TYPE "Role" AS ENUM ('A', 'b c'); CREATE TABLE t (id int PRIMARY KEY, roles "Role"[], code bpchar);""",
        """t: {key: id, columns: {id: integer not null, roles: '"Role"[]', code: bpchar}}""",
        "dim_t: {dimension: t, columns: {id: , roles: , code: }}",
        [LACKS_TYPE],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_cases_of_users(
    case: tuple[str, str, str, list[str]],
    postgres_cluster: TestCluster,
    source_database: str,
    source_url: str,
    warehouse_url: str,
) -> None:
    schema, source_part, star_part, expected = case
    execute(source_url, schema)
    text = f"name: case\nstar:\n  {star_part}\nsource:\n  tables:\n    {source_part}\n"
    contract = read_contract(text, "case.yaml")
    reader = postgres_cluster.url(source_database, READER)
    assert await problems_of(contract, source=reader, warehouse=warehouse_url) == expected
