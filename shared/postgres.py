"""PostgreSQL by asyncpg: a pool that may be created while the server is down, errors classed by recovery."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import asyncpg
from pydantic import SecretStr

from shared.errors import DependencyDownError, PermanentError, ServerBusyError, TransientError
from shared.postgres_url import CONNECT_LIMIT, read_url
from shared.watched_connection import limit_silence, watched

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
_MAKE_SETTINGS = """
SELECT name, pg_catalog.set_config(name, wanted, true) AS found
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS setting (name, wanted)
UNION ALL
SELECT 'search_path', pg_catalog.set_config(
    'search_path', pg_catalog.concat_ws(', ', 'pg_catalog', nullif(pg_catalog.current_setting('search_path'), '')), true
)
"""

_STANDBY_ADVICE = "set hot_standby_feedback = on there, or raise max_standby_streaming_delay"
# asyncpg keeps no reason that the server gave between two statements.
_SEE_LOG = f"its log has the reason (a standby that cancels long reads: {_STANDBY_ADVICE})"
_IS_READ_ONLY = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"

_UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, a primary that was demoted, a disk that ran full
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
# The server answers but can't do the work, because of its own state or of other sessions, not because of the message.
_BUSY = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,  # also on a standby that cancels reads
    asyncpg.LockNotAvailableError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
)
_MAY_PASS = (
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectInUseError,
    asyncpg.InternalClientError,
)
_RAISED = (*_UNREACHABLE, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
# Their texts quote the value ("invalid input syntax for type uuid: …"), or are whatever the author of a trigger liked.
_QUOTING = (asyncpg.DataError, asyncpg.RaiseError)


@contextmanager
def classed_errors(dependency: str) -> Iterator[None]:
    """Class what asyncpg raises inside by what recovers it.

    Their texts hold no row data: PostgreSQL's primary message without its details, or none where that quotes values.
    Raises: DependencyDownError, TransientError, PermanentError.
    """
    try:
        yield
    except _RAISED as error:
        raise _classed(dependency, error) from error


def _classed(dependency: str, error: BaseException) -> Exception:
    if isinstance(error, asyncpg.ProtocolViolationError) and "startup parameter" in str(error):  # PgBouncer speaks English
        advice = f"remove the parameter from the {dependency} URL, or point it at the server itself"
        return PermanentError(f"a pooler in front of the {dependency} database refuses the connection ({error}); {advice}")
    if isinstance(error, _UNREACHABLE):  # first: too many connections are a kind of insufficient resources
        return DependencyDownError(dependency, explain_unreachable(dependency, error))
    if isinstance(error, _BUSY):
        return ServerBusyError(dependency, _explain_busy(dependency, error))
    if isinstance(error, _MAY_PASS):
        return TransientError(f"{dependency}: {error.args[0]}")
    if isinstance(error, (*_QUOTING, ValueError)):  # the latter: an argument that does not fit
        return _withheld(dependency, error)
    if isinstance(error, asyncpg.InterfaceError):
        return _classed_misuse(dependency, error)
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        advice = "grant it to the role that Starlift uses, then replay the dead letters"
        return PermanentError(f"{dependency}: {error}; {advice}")
    return PermanentError(f"{dependency}: {type(error).__name__}: {error.args[0] if error.args else error}")


def _classed_misuse(dependency: str, error: asyncpg.InterfaceError) -> Exception:
    """Class an InterfaceError: usually the connection ended between two statements, and asyncpg keeps no reason."""
    if isinstance(error.__context__, _RAISED):  # raised on leaving a transaction whose connection has ended
        return _classed(dependency, error.__context__)
    if "closed" in str(error) or "released" in str(error):
        return ServerBusyError(
            dependency,
            f"the {dependency} database ended the connection between two statements; {_SEE_LOG}",
        )
    return TransientError(f"{dependency}: {error}")  # a wrong call of our own would raise it on every attempt


def _withheld(dependency: str, error: BaseException) -> PermanentError:
    """Name the error, and the table and column as far as PostgreSQL names them."""
    names = [getattr(error, name, None) for name in ("schema_name", "table_name", "column_name")]
    where = ".".join(name for name in names if name)
    what = f"{type(error).__name__} in {where}" if where else type(error).__name__
    return PermanentError(f"{dependency}: {what}; its text is withheld, it may quote a row")


def _explain_busy(dependency: str, error: asyncpg.PostgresError) -> str:
    """What keeps the server from its work, and what to do unless waiting is enough, in one sentence."""
    # The function that raises: the texts are in the server's language. A deadlock of two clients comes from DeadLockReport.
    is_conflict = (error.server_source_function or "").startswith("Process")
    match error:
        case asyncpg.SerializationError() | asyncpg.DeadlockDetectedError() if is_conflict:
            return f"the {dependency} database is a standby that cancels long reads ({error.args[0]}); {_STANDBY_ADVICE}"
        case asyncpg.DiskFullError():
            return f"the {dependency} database's disk is full ({error.args[0]}); free or add space"
        case asyncpg.OutOfMemoryError():
            return f"the {dependency} database is out of memory ({error.args[0]}); raise its limits"
        case _:
            return f"{dependency}: {error.args[0]}"


def explain_unreachable(dependency: str, error: BaseException) -> str:
    """One sentence: what is wrong with reaching a database, and what to do."""
    match error:
        case asyncpg.InvalidPasswordError():
            return (
                f"the {dependency} database refuses the user or the password; correct its URL or secret (PGPASSWORD and "
                "~/.pgpass are not read)"
            )
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"the {dependency} database refuses the login ({error}); correct its URL or its pg_hba.conf"
        case asyncpg.InvalidCatalogNameError():
            return f"the {dependency} server has no such database ({error}); create it or correct the URL"
        case asyncpg.ReadOnlySQLTransactionError():
            return _read_only(dependency)
        case TimeoutError():
            return f"the {dependency} database does not answer within {CONNECT_LIMIT.seconds} s; check host, port and firewall"
        case ssl.SSLCertVerificationError():
            return (
                f"the {dependency} database's certificate can't be verified ({error}); set sslrootcert in its "
                "URL to the certificate of the authority that signed it, and the host to a name that it is valid for"
            )
        case ConnectionRefusedError():
            return f"nothing listens at the {dependency} database's host and port; start it or correct the URL"
        case OSError():
            return f"the {dependency} database's host can't be reached ({error}); check the URL and the network"
        case _:
            advice = f"; {_SEE_LOG}" if isinstance(error, asyncpg.ConnectionDoesNotExistError) else ""
            return f"the {dependency} database can't be reached: {error}{advice}"


def _read_only(dependency: str) -> str:
    return f"the {dependency} database takes no writes; end its recovery or its read-only mode, or point the URL to the primary"


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
        self._url = read_url(name, url)
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
        self, *, isolation: Literal["read_committed", "repeatable_read"] = "read_committed", readonly: bool = False
    ) -> AsyncIterator[asyncpg.Connection]:
        """A connection in a transaction with SESSION_SETTINGS. The snapshot of a repeatable_read one is taken before its body.

        Raises: as `connection`; PermanentError also if the server refuses one of the settings.
        """
        async with self.connection() as connection, connection.transaction(isolation=isolation, readonly=readonly):
            await self._make_settings(connection)
            yield connection

    async def _make_settings(self, connection: asyncpg.Connection) -> None:
        has_17 = connection.get_server_version().major >= 17  # noqa: PLR2004 (PostgreSQL's)
        wanted = SESSION_SETTINGS | (_SETTINGS_OF_17 if has_17 else {})
        try:
            made = await connection.fetch(_MAKE_SETTINGS, list(wanted), list(wanted.values()))
        except (asyncpg.InsufficientPrivilegeError, asyncpg.CantChangeRuntimeParamError) as error:
            raise PermanentError(
                f"the {self.name} database does not let role '{self._url.user}' make its session settings ({error.args[0]}); "
                "permit it, or point the URL at the server itself"
            ) from error
        for name, found in made:
            if found != wanted.get(name, found):
                raise PermanentError(
                    f"the {self.name} database has {name} = {found} for role '{self._url.user}' although {wanted[name]} was "
                    "set; a pooler in front of it changes settings: point the URL at the server itself"
                )

    async def probe(self) -> None:
        """Raises: DependencyDownError while the database can't be reached, or takes no writes although it should."""
        async with self.connection() as connection:
            is_read_only = await connection.fetchval(_IS_READ_ONLY)
        if is_read_only and self._writes:
            if self._pool is not None:  # after a failover the host's name leads to the new primary: connect again
                await self._pool.expire_connections()
            raise DependencyDownError(self.name, _read_only(self.name))

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
            init=_prepare,
            statement_cache_size=0,  # a pooler may hand the next statement to a session that has not prepared it
        )

    async def _connect(self, *_arguments: Any, **options: Any) -> asyncpg.Connection:
        try:
            return await self._url.connect(**options)
        except asyncpg.InvalidPasswordError:
            if self._reread is None:
                raise
            self._url = read_url(self.name, await self._reread())
            return await self._url.connect(**options)


async def _keep(_connection: asyncpg.Connection) -> None:
    """Reset nothing between two uses of a connection: our settings end with their transaction."""


async def _prepare(connection: asyncpg.Connection) -> None:
    limit_silence(connection)


async def copy_out(connection: asyncpg.Connection, query: str, *, null: str) -> tuple[bytes, int]:
    """The result of a query as CSV without a header, with `null` for NULL; and how many rows it has."""
    pieces: list[bytes] = []

    async def collect(piece: bytes) -> None:
        pieces.append(piece)

    status = await connection.copy_from_query(query, output=collect, format="csv", null=null)
    return b"".join(pieces), int(status.split()[-1])
