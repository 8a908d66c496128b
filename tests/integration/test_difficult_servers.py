"""The star is correct whatever managed servers, poolers and roles do to a session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from contracts.column_types import INTEGER, TIMESTAMPTZ, verbatim
from contracts.contract import Contract
from contracts.origins import FromSource
from contracts.tables import Column, Dimension, SourceColumn, SourceTable
from infra.local.databases import READER, SOURCE_OWNER, execute
from shared.postgres import Database, read_in_parts
from shared.source_facts import UNKNOWN_POSITION
from tests.fixtures.dropping_pooler import dropping_pooler
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.plans import problems_of
from tests.fixtures.postgres_cluster import TestCluster

FLOAT = verbatim("double precision")
CONTRACT = Contract(
    "difficult",
    "public",
    "public",
    (
        SourceTable(
            "reading", ("id",), (SourceColumn("id", INTEGER), SourceColumn("value", FLOAT), SourceColumn("at", TIMESTAMPTZ))
        ),
    ),
    (
        Dimension(
            "dim_reading",
            ("id",),
            (
                Column("id", INTEGER, FromSource("id")),
                Column("value", FLOAT, FromSource("value")),
                Column("at", TIMESTAMPTZ, FromSource("at")),
            ),
            source="reading",
        ),
    ),
)
TABLE = """
CREATE TABLE reading (id integer PRIMARY KEY, value double precision NOT NULL, at timestamptz NOT NULL);
INSERT INTO reading VALUES (1, 0.1::float8 + 0.2, '2026-03-01 12:00:00.123456+00');
"""
VALUE = "SELECT value::text FROM dim_reading WHERE id = 1"
SHORT = "100ms"
LONGER = 0.3  # seconds


def refuse(signature: str, body: str) -> str:
    """Make a built-in function refuse everyone in this database, as on a managed server."""
    name = signature.partition("(")[0]
    return (
        f"ALTER FUNCTION pg_catalog.{signature} RENAME TO withheld_{name}; "
        f"CREATE FUNCTION pg_catalog.{signature} {body} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not available' "
        "USING ERRCODE = '55000'; END $$"
    )


def shadow(signature: str, returns: str) -> str:
    """Create a function of the same name that the role's search path finds first."""
    return f"CREATE FUNCTION shadow.{signature} RETURNS {returns} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'shadow'; END $$"


@pytest.fixture
async def owner(postgres_cluster: TestCluster, source_database: str) -> AsyncIterator[asyncpg.Connection]:
    execute(postgres_cluster.url(source_database, SOURCE_OWNER), TABLE)
    connection = await asyncpg.connect(postgres_cluster.url(source_database))
    yield connection
    await connection.close()


@pytest.fixture
def source_url(postgres_cluster: TestCluster, source_database: str, owner: asyncpg.Connection) -> str:
    return postgres_cluster.url(source_database, READER)


@asynccontextmanager
async def reading(source_url: str, warehouse_url: str) -> AsyncIterator[Pipeline]:
    async with open_pipeline(source_url, warehouse_url) as pipeline:
        yield pipeline.reading(CONTRACT)


async def require_right(pipeline: Pipeline) -> None:
    await pipeline.run()
    assert await pipeline.select(VALUE) == [("0.30000000000000004",)]
    verdict = await pipeline.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 0)


async def test_values_stay_exact_behind_a_pooler_that_drops_parameters(
    owner: asyncpg.Connection, source_database: str, source_url: str, warehouse_url: str
) -> None:
    await owner.execute(f'ALTER DATABASE "{source_database}" SET extra_float_digits = 0')
    await owner.execute(f"ALTER DATABASE \"{source_database}\" SET TimeZone = 'Asia/Kolkata'")
    await owner.execute(f"ALTER DATABASE \"{source_database}\" SET DateStyle = 'German'")
    port = urlsplit(source_url).port
    assert port is not None
    async with (
        dropping_pooler(port) as pooled,
        reading(source_url.replace(f":{port}/", f":{pooled}/"), warehouse_url) as pipeline,
    ):
        await require_right(pipeline)


async def test_a_role_with_short_timeouts_and_its_own_search_path_reads_everything(
    owner: asyncpg.Connection, source_database: str, source_url: str, warehouse_url: str
) -> None:
    await owner.execute(f"CREATE SCHEMA shadow; GRANT USAGE ON SCHEMA shadow TO {READER}")
    for signature, returns in (
        ("sha256(bytea)", "bytea"),
        ("pg_current_wal_lsn()", "pg_lsn"),
        ("convert_to(text, name)", "bytea"),
    ):
        await owner.execute(shadow(signature, returns))
    role = f'ALTER ROLE {READER} IN DATABASE "{source_database}" SET'
    await owner.execute(f"{role} search_path = shadow, pg_catalog, public")
    for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        await owner.execute(f"{role} {setting} = '{SHORT}'")
    async with reading(source_url, warehouse_url) as pipeline:
        async with pipeline.source.transaction(isolation="repeatable_read", readonly=True) as session:
            await asyncio.sleep(LONGER)
            await session.execute("SELECT pg_sleep($1)", LONGER)
        async with pipeline.source.connection() as session:
            with pytest.raises(asyncpg.QueryCanceledError):  # what the role has without us
                await session.execute("SELECT pg_sleep($1)", LONGER)
        await require_right(pipeline)


async def test_a_server_without_log_position_and_md5_can_be_a_source(
    owner: asyncpg.Connection, source_url: str, warehouse_url: str
) -> None:
    async with reading(source_url, warehouse_url) as pipeline:
        await pipeline.run()
        assert pipeline.checkpoint().snapshot.wal_position != UNKNOWN_POSITION
        for signature, returns in (("pg_current_wal_lsn()", "pg_lsn"), ("md5(text)", "text"), ("md5(bytea)", "text")):
            await owner.execute(refuse(signature, f"RETURNS {returns}"))
        assert await problems_of(CONTRACT, source=source_url) == []
        with capture_logs() as logs:
            await require_right(pipeline)
        assert [entry for entry in logs if entry["event"] == "full_read"] == []
        checkpoint = pipeline.checkpoint()
        assert checkpoint.snapshot.wal_position == UNKNOWN_POSITION
        await owner.execute("UPDATE reading SET value = 2")
        await pipeline.run()
        assert await pipeline.select(VALUE) == [("2",)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "RAISE EXCEPTION 'permission denied to set parameter \"%\"', name USING ERRCODE = '42501';",
            rf"does not let role '{READER}' change its session settings \(permission denied to set parameter \"client_enc",
        ),
        (
            "RETURN CASE name WHEN 'extra_float_digits' THEN '0' ELSE value END;",
            rf"has extra_float_digits = 0 for role '{READER}' although 3 was set; .* point the URL at the server itself",
        ),
    ],
)
async def test_a_setting_that_cannot_be_changed_is_named_with_the_role(
    owner: asyncpg.Connection, source_url: str, body: str, expected: str
) -> None:
    await owner.execute(
        "ALTER FUNCTION pg_catalog.set_config(text, text, boolean) RENAME TO withheld_set_config; "
        "CREATE FUNCTION pg_catalog.set_config(name text, value text, local boolean) RETURNS text LANGUAGE plpgsql "
        f"AS $$ BEGIN {body} END $$"
    )
    (problem,) = await problems_of(CONTRACT, source=source_url)
    assert re.match(f"the source database {expected}", problem)


async def test_reading_in_parts_leaves_no_prepared_statement_in_a_pooled_session(source_url: str) -> None:
    async with (
        aclosing(Database("source", SecretStr(source_url), connections=1)) as database,
        database.transaction(readonly=True) as session,
    ):
        found = []
        async for row in read_in_parts(session, "SELECT * FROM generate_series(1, $1) AS number", 25, rows=10):
            found.append(row["number"])
            assert await session.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
        assert found == list(range(1, 26))
        assert await session.fetchval("SELECT count(*) FROM pg_cursors WHERE name LIKE 'starlift%'") == 0


async def test_only_the_url_decides_how_to_connect(
    source_url: str, warehouse_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """This holds for a service, for `up` and for the set-up of the local stack."""
    files = tmp_path / ".postgresql"
    files.mkdir()
    for name in ("postgresql.crt", "postgresql.key", "root.crt", "root.crl"):
        (files / name).write_text("of another program")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in {
        "PGSSLMODE": "verify-full",
        "PGSSLNEGOTIATION": "direct",
        "PGTARGETSESSIONATTRS": "standby",
        "PGOPTIONS": "-c search_path=nowhere",
        "PGSERVICE": "elsewhere",
        "PGPORT": "1",
        "PGPASSWORD": "wrong",
    }.items():
        monkeypatch.setenv(name, value)
    assert await problems_of(CONTRACT, source=source_url, warehouse=warehouse_url) == []
    execute(warehouse_url, "SELECT 1")


async def test_a_password_in_the_environment_is_never_used(source_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = urlsplit(source_url)
    assert parts.password is not None
    monkeypatch.setenv("PGPASSWORD", parts.password)
    (problem,) = await problems_of(CONTRACT, source=source_url.replace(f":{parts.password}@", "@"))
    assert re.search(r"refuses the user or the password; .* \(PGPASSWORD and ~/.pgpass are not read", problem)


async def test_a_rotated_password_is_read_again(source_url: str) -> None:
    password = str(urlsplit(source_url).password)

    async def reread() -> SecretStr:
        return SecretStr(source_url)

    old = SecretStr(source_url.replace(f":{password}@", ":old@"))
    async with aclosing(Database("source", old, connections=1, reread=reread)) as database:
        await database.probe()
