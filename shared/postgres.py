"""A PostgreSQL database by asyncpg: a pool that may be created while the server is down."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from pydantic import SecretStr

from shared.errors import DependencyDownError, LoginRefusedError, PermanentError, TransientError
from shared.postgres_errors import classed_errors, explain_read_only, refuses_login
from shared.postgres_url import CONNECT_LIMIT, parse_url
from shared.sql import literal

# Every transaction renders and reads values the same way and waits as long as it takes, whatever the defaults of the server and
# the role are. Set in the transaction itself: a pooler drops start-up parameters and may give each transaction another session.
SESSION_SETTINGS = {
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "lc_monetary": "C",  # decides how many decimals a money value has
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",  # shared.sql.literal() relies on it
    "cursor_tuple_fraction": "1",  # a cursor is read to its end
    "jit": "off",  # the planner's estimate for catalog.sql is so high that compiling it took 1.2 s of every run and proof
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_SETTINGS_OF_17 = {"transaction_timeout": "0"}
# PostgreSQL's own functions come before any that a schema of the role's search path has under the same name.
_SET_SETTINGS = """
SELECT name, pg_catalog.set_config(name, wanted, true) AS found
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS setting (name, wanted)
UNION ALL
SELECT 'search_path', pg_catalog.set_config(
    'search_path', pg_catalog.concat_ws(', ', 'pg_catalog', nullif(pg_catalog.current_setting('search_path'), '')), true
)
"""
_IS_READ_ONLY = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"

# A statement that notices the loss by itself raises at once, with the server's reason; only a wait that does not is cancelled.
GRACE = timedelta(seconds=1)
# How long a peer may acknowledge nothing. Linux applies the same limit to a peer that acknowledges but stops reading
# (tcp(7), TCP_USER_TIMEOUT), so it has to be longer than a busy server's pauses.
SILENCE_MAXIMUM = timedelta(minutes=2)
# A server sends 8 KiB at a time, and to be woken up for each takes longer than to read them. So after the first pieces of a
# long result, whoever has read all that has arrived lets the kernel's buffers fill; the server sends on meanwhile.
FEW_PIECES, LARGE_PIECE, CATCHING_UP = 8, 64 * 1024, timedelta(milliseconds=10)
_KEEPALIVE_OPTIONS = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}  # seconds, seconds, probes


class UnknownSnapshotError(Exception):
    """The transaction that has exported the snapshot has ended."""


class Database:
    """A pool of connections to one database; `name` is what errors call it ('source', 'warehouse').

    Connections are opened when they are first needed: a service starts although its database is down. With `writes`, a
    database that is read-only counts as down. `reread` reads the URL again when a login is refused: passwords are rotated.

    Raises: PermanentError for a URL that can't be read.
    """

    def __init__(
        self,
        name: str,
        url: SecretStr,
        *,
        connections: int,
        writes: bool = False,
        reread: Callable[[], Awaitable[SecretStr]] | None = None,
    ) -> None:
        self.name = name
        self._text = url
        self._url = parse_url(name, url)
        self._connections = connections
        self._writes = writes
        self._reread = reread
        self._pool: asyncpg.Pool | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the pool, with the settings of the server and the role; errors inside are classed.

        Raises: DependencyDownError, TransientError, PermanentError.
        """
        with classed_errors(self.name):
            if self._pool is None:
                self._pool = await self._create_pool()
            async with self._pool.acquire(timeout=CONNECT_LIMIT.total_seconds() * 2) as connection, watched(connection):
                yield connection  # type: ignore[misc]  # a proxy that behaves as the connection

    @asynccontextmanager
    async def transaction(
        self,
        *,
        isolation: Literal["read_committed", "repeatable_read"] = "read_committed",
        readonly: bool = False,
        snapshot: str | None = None,
    ) -> AsyncIterator[asyncpg.Connection]:
        """A connection in a transaction with SESSION_SETTINGS. The snapshot of a repeatable_read one is taken before its body.

        With `snapshot` it is the one that another transaction has exported under that name.

        Raises: as `connection`; PermanentError also if the server refuses one of the settings; UnknownSnapshotError.
        """
        async with self.connection() as connection, connection.transaction(isolation=isolation, readonly=readonly):
            if snapshot is not None:
                await _import_snapshot(connection, snapshot)
            await self._set_settings(connection)
            yield connection

    async def _set_settings(self, connection: asyncpg.Connection) -> None:
        has_17 = connection.get_server_version().major >= 17  # noqa: PLR2004 (PostgreSQL's)
        wanted = SESSION_SETTINGS | (_SETTINGS_OF_17 if has_17 else {})
        try:
            found = await connection.fetch(_SET_SETTINGS, list(wanted), list(wanted.values()))
        except (asyncpg.InsufficientPrivilegeError, asyncpg.CantChangeRuntimeParamError) as error:
            raise PermanentError(
                f"the {self.name} database does not let role '{self._url.user}' change its session settings ({error.args[0]}); "
                "permit it, or point the URL at the server itself"
            ) from error
        for name, value in found:
            if value != wanted.get(name, value):
                raise PermanentError(
                    f"the {self.name} database has {name} = {value} for role '{self._url.user}' although {wanted[name]} was "
                    "set; a pooler in front of it changes settings: point the URL at the server itself"
                )

    async def probe(self) -> None:
        """Raises: as `transaction`; DependencyDownError also while the database takes no writes although it should."""
        async with self.transaction() as connection:
            is_read_only = await connection.fetchval(_IS_READ_ONLY)
        if is_read_only and self._writes:
            if self._pool is not None:  # after a failover the host's name leads to the new primary: connect again
                await self._pool.expire_connections()
            raise DependencyDownError(self.name, explain_read_only(self.name))

    async def aclose(self) -> None:
        """Close every connection, at once."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def _create_pool(self) -> asyncpg.Pool:
        return await asyncpg.create_pool(
            connect=self._connect,
            reset=_keep,
            min_size=0,
            max_size=self._connections,
            init=limit_silence,
            statement_cache_size=0,  # a pooler may hand the next statement to a session that has not prepared it
        )

    async def _connect(self, *_arguments: Any, **options: Any) -> asyncpg.Connection:
        try:
            return await self._url.connect(**options)
        except asyncpg.PostgresError as error:
            if self._reread is None or not refuses_login(error) or not await self._has_changed(self._reread):
                raise
        return await self._url.connect(**options)

    async def _has_changed(self, reread: Callable[[], Awaitable[SecretStr]]) -> bool:
        """Read the URL again; return whether it is another one. Raises: LoginRefusedError if it can't be read."""
        try:
            found = await reread()
            parsed = parse_url(self.name, found)
        except (PermanentError, TransientError, DependencyDownError) as error:  # the messages wait, whatever the secret holds
            reason = f"the {self.name} database refuses the login, and its secret can't be read again: {error}"
            raise LoginRefusedError(self.name, reason) from error
        if found == self._text:
            return False
        self._text, self._url = found, parsed
        return True


async def _import_snapshot(connection: asyncpg.Connection, name: str) -> None:
    """Must come first in the transaction. The server's words for a name that it does not know differ between versions."""
    try:
        await connection.execute(f"SET TRANSACTION SNAPSHOT {literal(name)}")
    except (
        asyncpg.InvalidParameterValueError,
        asyncpg.UndefinedObjectError,
        asyncpg.ObjectNotInPrerequisiteStateError,
        asyncpg.FeatureNotSupportedError,  # of another database
    ) as error:
        raise UnknownSnapshotError(f"the source does not know snapshot {name}: {error.args[0]}") from error


async def _keep(_connection: asyncpg.Connection) -> None:
    """Reset nothing between two uses of a connection: our settings end with their transaction."""


async def copy_out(connection: asyncpg.Connection, query: str, *, null: str) -> tuple[bytes, int]:
    """The result of a query as CSV without a header, with `null` for NULL; and how many rows it has."""
    pieces: list[bytes] = []

    async def collect(piece: bytes) -> None:
        pieces.append(piece)
        if len(pieces) > FEW_PIECES and len(piece) < LARGE_PIECE:
            await asyncio.sleep(CATCHING_UP.total_seconds())

    status = await connection.copy_from_query(query, output=collect, format="csv", null=null)
    return b"".join(pieces), int(status.split()[-1])


@asynccontextmanager
async def watched(connection: asyncpg.Connection | PoolConnectionProxy) -> AsyncIterator[None]:
    """End what waits inside when the connection ends.

    In asyncpg 0.32 `copy_records_to_table`, `copy_to_table` and `executemany` wait for room to write on an event that a lost
    connection never sets: when the server ends the connection in the middle of a COPY, the call waits forever.
    Raises: asyncpg.ConnectionDoesNotExistError in place of the wait.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    cancelled_before = task.cancelling() if task is not None else 0
    grace: asyncio.TimerHandle | None = None
    has_ended = is_over = is_cancelled = False

    def end_wait() -> None:
        nonlocal is_cancelled
        is_cancelled = task is not None and task.cancel()

    def start_grace(_connection: object) -> None:
        nonlocal grace, has_ended
        has_ended = True
        if not is_over:
            grace = loop.call_later(GRACE.total_seconds(), end_wait)

    connection.add_termination_listener(start_grace)
    try:
        yield
    except (asyncio.CancelledError, asyncpg.InterfaceError) as error:  # on leaving a transaction, or in a later call
        is_wanted = is_cancelled and task is not None and task.uncancel() <= cancelled_before
        if is_wanted or (has_ended and isinstance(error, asyncpg.InterfaceError)):
            raise asyncpg.ConnectionDoesNotExistError("the server ended the connection in the middle of a call") from error
        raise
    finally:
        is_over = True
        if grace is not None:
            grace.cancel()
        with suppress(asyncpg.InterfaceError):  # the pool has taken back one that has ended
            connection.remove_termination_listener(start_grace)


async def limit_silence(connection: asyncpg.Connection) -> None:
    """Let the kernel end a TCP connection whose peer is silent for SILENCE_MAXIMUM.

    A peer that vanishes without closing the connection (a failover, a NAT entry that expired) goes unnoticed by a statement
    that waits for its answer.
    """
    transport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001 (asyncpg has no public way to it)
    plain = transport.get_extra_info("socket")
    if plain is None or plain.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_OPTIONS.items():
        if hasattr(socket, name):  # macOS names some of them differently
            plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = int(SILENCE_MAXIMUM / timedelta(milliseconds=1))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


async def read_in_parts(
    connection: asyncpg.Connection, query: str, *arguments: object, rows: int
) -> AsyncIterator[asyncpg.Record]:
    """Yield the rows of a query, fetching `rows` at a time, inside the connection's transaction.

    asyncpg's own cursors prepare a statement under a name, and a pooler in transaction mode hands the session to the next
    process, whose statement has the same name.
    """
    name = f"starlift_{uuid4().hex}"
    await connection.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {query}", *arguments)
    while part := await connection.fetch(f"FETCH {rows} FROM {name}"):
        for record in part:
            yield record
        if len(part) < rows:
            break
    await connection.execute(f"CLOSE {name}")
