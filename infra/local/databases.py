"""Single statements for the set-up, and the databases and roles of the local stack: who owns, who only reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import asyncpg
from pydantic import SecretStr

from shared.postgres_url import parse_url

if TYPE_CHECKING:
    from infra.local.postgres import Cluster  # which runs statements of this module

_CONNECT_S = 30.0


def execute(url: str, *statements: str) -> None:
    """Run statements one after another, each in a transaction of its own."""

    async def work(connection: asyncpg.Connection) -> None:
        for statement in statements:
            await connection.execute(statement)

    _connected(url, work)


def fetch_value(url: str, query: str, *arguments: object) -> Any:
    """The first column of the first row; None if there is no row."""
    return _connected(url, lambda connection: connection.fetchval(query, *arguments))


def _connected(url: str, work: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
    """Do `work` on a connection of its own, in a thread: the caller may be in an event loop."""

    async def connect_and_work() -> Any:
        connection = await parse_url("local", SecretStr(url)).connect(timeout=_CONNECT_S)
        try:
            return await work(connection)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, connect_and_work()).result()


SOURCE, SOURCE_OWNER, READER = "totesys", "totesys", "starlift_reader"
WAREHOUSE, LOADER = "warehouse", "starlift_loader"


def set_up_source(cluster: Cluster) -> str:
    """The source's database, written by its owner; the URL with which Starlift reads it."""
    set_up_database(cluster, SOURCE, owner=SOURCE_OWNER, reader=READER)
    return cluster.url(SOURCE, READER)


def set_up_warehouse(cluster: Cluster) -> str:
    """The warehouse's database, owned by the loader; its URL."""
    set_up_database(cluster, WAREHOUSE, owner=LOADER)
    return cluster.url(WAREHOUSE, LOADER)


def set_up_database(cluster: Cluster, name: str, *, owner: str, reader: str | None = None) -> None:
    """A database that only `owner` changes. `reader` may connect, and SELECT what the owner has made or will make."""
    for role in (owner, reader) if reader else (owner,):
        if not fetch_value(cluster.url(), "SELECT true FROM pg_roles WHERE rolname = $1", role):
            execute(cluster.url(), f'CREATE ROLE "{role}" LOGIN')
        # Each time: the file that keeps the password may be newer than the role. A failure must not log it.
        password = f"ALTER ROLE \"{role}\" PASSWORD '{cluster.password(role)}'"
        execute(cluster.url(), "SET log_min_error_statement = panic", password)
    if not fetch_value(cluster.url(), "SELECT true FROM pg_database WHERE datname = $1", name):
        execute(cluster.url(), f'CREATE DATABASE "{name}" OWNER "{owner}"')
    execute(
        cluster.url(name),
        *database_rights(name, reader),
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        *(_read_only(owner, reader) if reader else ()),
    )


def database_rights(database: str, reader: str | None) -> tuple[str, ...]:
    """Statements for the rights that a database does not take over from its template."""
    revoked = f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC'  # CONNECT and TEMPORARY, which PostgreSQL grants to everyone
    return (revoked, f'GRANT CONNECT ON DATABASE "{database}" TO "{reader}"') if reader else (revoked,)


def _read_only(owner: str, reader: str) -> tuple[str, ...]:
    return (
        f'GRANT USAGE ON SCHEMA public TO "{reader}"',
        f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{reader}"',
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "{owner}" IN SCHEMA public GRANT SELECT ON TABLES TO "{reader}"',
    )
