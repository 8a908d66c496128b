"""The simulated source matches the contract and is realistic at any scale."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys

import asyncpg
import pytest

from contracts.column_types import ColumnType, Kind
from contracts.tables import SourceTable
from infra.local.databases import READER, execute, fetch_value
from infra.local.processes import wait_until
from services.operator.local.totesys.__main__ import main
from services.operator.local.totesys.fill import connect, create, fill
from tests.fixtures.limits import HANG, HANG_S
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.totesys import SOURCE_TABLES
from tests.integration.totesys_rows import count_rows, digest

FOREIGN_KEYS = {
    "counterparty.legal_address_id": "address RESTRICT",
    "staff.department_id": "department RESTRICT",
    "sales_order.design_id": "design RESTRICT",
    "sales_order.staff_id": "staff RESTRICT",
    "sales_order.counterparty_id": "counterparty RESTRICT",
    "sales_order.currency_id": "currency RESTRICT",
    "sales_order.agreed_delivery_location_id": "address RESTRICT",
    "purchase_order.staff_id": "staff RESTRICT",
    "purchase_order.counterparty_id": "counterparty RESTRICT",
    "purchase_order.currency_id": "currency RESTRICT",
    "purchase_order.agreed_delivery_location_id": "address RESTRICT",
    "transaction.sales_order_id": "sales_order SET NULL",
    "transaction.purchase_order_id": "purchase_order SET NULL",
    "payment.transaction_id": "transaction RESTRICT",
    "payment.counterparty_id": "counterparty RESTRICT",
    "payment.currency_id": "currency RESTRICT",
    "payment.payment_type_id": "payment_type RESTRICT",
}
FOREIGN_KEY_QUERY = """
SELECT conrelid::regclass || '.' || attname AS column,
       confrelid::regclass || CASE confdeltype WHEN 'r' THEN ' RESTRICT' WHEN 'n' THEN ' SET NULL' ELSE ' ?' END AS rule
FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
WHERE contype = 'f' AND convalidated AND array_length(conkey, 1) = 1
"""


def spelled(kind: ColumnType) -> str:
    """A contract type as written in PostgreSQL's catalog of the source."""
    match kind.kind:
        case Kind.TIMESTAMP:
            return "timestamp(3) without time zone"
        case Kind.NUMERIC:
            return f"numeric({kind.precision},{kind.scale})"
        case Kind.TEXT:
            return f"character varying({kind.length})" if kind.length else "text"
        case Kind.ENUM:
            return " ".join(kind.labels)
        case _:
            return kind.kind.value


@pytest.mark.parametrize("table", SOURCE_TABLES, ids=lambda table: table.name)
async def test_every_column_matches_the_contract(source: asyncpg.Connection, table: SourceTable) -> None:
    columns = await source.fetch(
        """
        SELECT attname AS name, NOT attnotnull AS nullable, coalesce(
            (SELECT string_agg(enumlabel, ' ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = atttypid),
            format_type(atttypid, atttypmod)) AS type
        FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
        """,
        f'"{table.name}"',
    )
    assert [tuple(column) for column in columns] == [
        (column.name, column.nullable, spelled(column.type)) for column in table.columns
    ]


async def test_keys_defaults_and_other_tables_match_the_real_database(source: asyncpg.Connection) -> None:
    assert {row["column"]: row["rule"] for row in await source.fetch(FOREIGN_KEY_QUERY)} == FOREIGN_KEYS
    uniques = await source.fetch(
        "SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'u' AND connamespace = 'public'::regnamespace"
    )
    assert {row[0] for row in uniques} == {
        "transaction UNIQUE (sales_order_id)",
        "transaction UNIQUE (purchase_order_id)",
        "payment UNIQUE (transaction_id)",
    }
    defaults = await source.fetch(
        "SELECT table_name || '.' || column_name, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name <> '_prisma_migrations' AND column_default IS NOT NULL"
    )
    assert dict(tuple(row) for row in defaults) == {
        f"{table.name}.{column}": default
        for table in SOURCE_TABLES
        for column, default in (
            (table.key[0], f"nextval('{table.name}_{table.key[0]}_seq'::regclass)"),
            ("created_at", "CURRENT_TIMESTAMP"),
        )
    }
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    assert {row[0] for row in await source.fetch(tables)} == {table.name for table in SOURCE_TABLES} | {"_prisma_migrations"}
    assert await source.fetchval("SHOW TimeZone") == "UTC"


async def test_fill_has_the_proportions_of_the_real_database(source: asyncpg.Connection) -> None:
    reported = await fill(source, orders=11_187, seed=1)
    assert reported == await count_rows(source)
    assert reported == {
        "currency": 3,
        "payment_type": 4,
        "department": 8,
        "design": 473,
        "address": 30,
        "staff": 20,
        "counterparty": 20,
        "sales_order": 11_187,
        "purchase_order": 4_649,
        "transaction": 15_836,
        "payment": 15_836,
    }
    assert len(await source.fetch(FOREIGN_KEY_QUERY)) == len(FOREIGN_KEYS), "every foreign key is back, and valid"


async def test_the_rows_depend_only_on_the_seed(source: asyncpg.Connection) -> None:
    async def filled(seed: int) -> dict[str, str]:
        await source.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await create(source)
        await fill(source, orders=200, seed=seed)
        return await digest(source)

    first, again, other = await filled(7), await filled(7), await filled(8)
    assert first == again
    assert first["payment"] != other["payment"]
    assert first["address"] != other["address"]


async def test_every_order_has_one_transaction_and_one_payment_that_agree_with_it(source: asyncpg.Connection) -> None:
    await fill(source, orders=500, seed=1)
    agreeing = await source.fetchval(
        """
        SELECT count(*) FROM payment AS p JOIN "transaction" AS t USING (transaction_id)
        LEFT JOIN sales_order AS s USING (sales_order_id) LEFT JOIN purchase_order AS b USING (purchase_order_id)
        WHERE t.transaction_type::text = CASE WHEN b.purchase_order_id IS NULL THEN 'SALE' ELSE 'PURCHASE' END
          AND p.counterparty_id = coalesce(s.counterparty_id, b.counterparty_id)
          AND p.currency_id = coalesce(s.currency_id, b.currency_id)
          AND p.payment_amount = coalesce(s.units_sold * s.unit_price, b.item_quantity * b.item_unit_price)
          AND p.payment_date = coalesce(s.agreed_payment_date, b.agreed_payment_date)
        """
    )
    assert agreeing == 500 + await source.fetchval("SELECT count(*) FROM purchase_order")


async def test_times_are_ordered_and_dates_are_texts(source: asyncpg.Connection) -> None:
    await fill(source, orders=500, seed=1)
    for table in SOURCE_TABLES:
        query = f'SELECT count(*), count(*) FILTER (WHERE last_updated < created_at) FROM "{table.name}"'
        rows, backwards = await source.fetchrow(query) or (0, 0)
        assert rows > 0
        assert backwards == 0, table.name
    assert await source.fetchval(
        "SELECT count(*) FROM payment WHERE extract(milliseconds FROM last_updated)::numeric % 1000 > 0"
    )
    date = re.compile(r"\d{4}-\d{2}-\d{2}")
    assert all(date.fullmatch(row[0]) for row in await source.fetch("SELECT agreed_delivery_date FROM sales_order"))


async def test_a_reader_sees_empty_and_absent_texts_and_cannot_write(
    source: asyncpg.Connection, postgres_cluster: TestCluster, source_database: str
) -> None:
    await fill(source, orders=10, seed=1)
    reader = await connect(postgres_cluster.url(source_database, READER))
    for table, column in (("address", "address_line_2"), ("counterparty", "commercial_contact")):
        texts = {row[0] for row in await reader.fetch(f"SELECT {column} FROM {table}")}
        assert {None, ""} < texts
    assert await reader.fetchval("SELECT count(*) FROM department WHERE location IS NULL") == 1
    assert await reader.fetchval("SELECT count(*) FROM department WHERE manager IS NULL") == 1
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await reader.execute("DELETE FROM payment")
    await reader.close()


def test_the_command_fills_and_writes_and_explains_failures_in_a_sentence(
    source_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["totesys", *arguments])
        main()
        return capsys.readouterr().out

    assert "filled" in run("fill", "--url", source_url, "--orders", "40")
    assert "already" in run("fill", "--url", source_url)
    monkeypatch.setenv("STARLIFT_SOURCE_URL", source_url)
    assert "already" in run("fill", "--configured")
    assert "transactions" in run("write", "--url", source_url, "--rate", "50", "--seconds", "0.5")
    with pytest.raises(SystemExit, match="does not exist on its server"):
        run("write", "--url", f"{source_url}_unknown")
    execute(source_url, "DROP TABLE payment")
    with pytest.raises(SystemExit, match='"payment" does not exist'):
        run("write", "--url", source_url, "--rate", "100", "--seconds", "30")


def test_a_signal_stops_the_writer_which_prints_its_summary(source_url: str) -> None:
    async def create_and_fill() -> None:
        connection = await connect(source_url)
        await create(connection)
        await fill(connection, orders=20, seed=1)
        await connection.close()

    asyncio.run(create_and_fill())
    command = [sys.executable, "-m", "services.operator.local.totesys", "write", "--url", source_url, "--rate", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writing:
        newest = 'SELECT max(transaction_id) FROM "transaction"'
        known = fetch_value(source_url, newest)
        assert wait_until(lambda: bool(fetch_value(source_url, newest) > known), within=HANG)
        writing.send_signal(signal.SIGTERM)
        said, _ = writing.communicate(timeout=HANG_S)
    assert writing.returncode == 0
    assert said.startswith("wrote ")
