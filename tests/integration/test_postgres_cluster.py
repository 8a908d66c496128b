from __future__ import annotations

import asyncpg
import pytest

from infra.local.databases import LOADER, READER, SOURCE_OWNER, execute, fetch_value, set_up_database
from tests.fixtures.postgres_cluster import TestCluster


def test_the_reader_sees_tables_made_before_and_after_it(postgres_cluster: TestCluster) -> None:
    database = postgres_cluster.create_database(reader=None)
    owner, reader = postgres_cluster.url(database, SOURCE_OWNER), postgres_cluster.url(database, READER)
    execute(owner, "CREATE TABLE before AS SELECT 1 AS one")
    set_up_database(postgres_cluster, database, owner=SOURCE_OWNER, reader=READER)
    execute(owner, "CREATE TABLE after AS SELECT 2 AS two")
    assert fetch_value(reader, "SELECT one FROM before") == 1
    assert fetch_value(reader, "SELECT two FROM after") == 2
    postgres_cluster.drop_database(database)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO design VALUES (1)",
        "DELETE FROM design",
        "SELECT nextval('numbers')",
        "CREATE TABLE mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE SCHEMA mine",
    ],
)
def test_the_reader_can_only_read(postgres_cluster: TestCluster, source_database: str, statement: str) -> None:
    execute(
        postgres_cluster.url(source_database, SOURCE_OWNER), "CREATE TABLE design (design_id int)", "CREATE SEQUENCE numbers"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(postgres_cluster.url(source_database, READER), statement)


def test_a_role_cannot_connect_to_another_database(
    postgres_cluster: TestCluster, source_database: str, warehouse_database: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(postgres_cluster.url(warehouse_database, READER), "SELECT 1")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(postgres_cluster.url(source_database, LOADER), "SELECT 1")


def test_the_loader_owns_its_database(postgres_cluster: TestCluster, warehouse_database: str) -> None:
    execute(postgres_cluster.url(warehouse_database, LOADER), "CREATE SCHEMA star", "CREATE TABLE star.fact ()")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("wal_level", "logical"),
        ("track_commit_timestamp", "on"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("server_encoding", "UTF8"),
        ("data_checksums", "on"),
    ],
)
def test_the_server_is_configured_for_change_capture_and_durability(
    second_postgres_cluster: TestCluster, setting: str, value: str
) -> None:
    assert fetch_value(second_postgres_cluster.url(), "SELECT current_setting($1)", setting) == value


async def test_a_database_can_be_created_while_an_event_loop_runs(postgres_cluster: TestCluster) -> None:
    database = postgres_cluster.create_warehouse()
    connection = await asyncpg.connect(postgres_cluster.url(database, LOADER))
    assert await connection.fetchval("SELECT current_user") == LOADER
    await connection.close()
    postgres_cluster.drop_database(database)


def test_committed_data_survives_a_crash(second_postgres_cluster: TestCluster) -> None:
    cluster = second_postgres_cluster
    execute(cluster.url(), "CREATE TABLE kept AS SELECT 1 AS one")
    cluster.kill()
    assert not cluster.is_running()
    cluster.start(cluster.port or 0)
    assert fetch_value(cluster.url(), "SELECT one FROM kept") == 1
