"""PostgreSQL by asyncpg: a pool that may be created while the server is down, errors classed by recovery."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
from pydantic import SecretStr

from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.watched_connection import limit_silence, watched

CONNECT_LIMIT = timedelta(seconds=10)
# Every session renders and reads values the same way, whatever the server's or the role's defaults are.
SESSION_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "lc_monetary": "C",  # how many digits of money stand behind the point
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",  # shared.sql.literal() relies on it
}

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
_MAY_PASS = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectInUseError,
    asyncpg.InternalClientError,
)
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
    except _UNREACHABLE as error:  # first: too many connections are a kind of insufficient resources
        raise DependencyDownError(dependency, explain_unreachable(dependency, error)) from error
    except _MAY_PASS as error:
        raise TransientError(f"{dependency}: {error.args[0]}") from error
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise _unreadable(dependency) from error
    except _QUOTING as error:
        raise _withheld(dependency, error) from error
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError):  # an argument that does not fit; the text quotes it
            raise _withheld(dependency, error) from error
        if isinstance(error.__context__, _UNREACHABLE):  # who leaves a transaction whose connection broke meets this instead
            raise DependencyDownError(dependency, explain_unreachable(dependency, error.__context__)) from error
        # A connection that broke while it was in use; a wrong call of ours would say so on every attempt, too.
        raise TransientError(f"{dependency}: {error}") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise PermanentError(
            f"{dependency}: {error}; grant it to the role that Starlift uses, then replay the dead letters"
        ) from error
    except asyncpg.PostgresError as error:
        raise PermanentError(f"{dependency}: {type(error).__name__}: {error.args[0] if error.args else error}") from error


def _withheld(dependency: str, error: Exception) -> PermanentError:
    """Which error it is, and of which table and column as far as PostgreSQL says."""
    names = [getattr(error, name, None) for name in ("schema_name", "table_name", "column_name")]
    where = ".".join(name for name in names if name)
    what = f"{type(error).__name__} in {where}" if where else type(error).__name__
    return PermanentError(f"{dependency}: {what}; its text is withheld, it may quote a row")


def explain_unreachable(dependency: str, error: BaseException) -> str:
    """One sentence: what is wrong with reaching a database, and what to do."""
    match error:
        case asyncpg.InvalidPasswordError():
            return f"the {dependency} database refuses the user or the password; correct its URL"
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"the {dependency} database refuses the login ({error}); correct its URL or its pg_hba.conf"
        case asyncpg.InvalidCatalogNameError():
            return f"the {dependency} server has no such database ({error}); create it or correct the URL"
        case asyncpg.ReadOnlySQLTransactionError():
            return _read_only(dependency)
        case TimeoutError():
            return f"the {dependency} database does not answer within {CONNECT_LIMIT.seconds} s; check host, port and firewall"
        case ConnectionRefusedError():
            return f"nothing listens at the {dependency} database's host and port; start it or correct the URL"
        case OSError():
            return f"the {dependency} database's host can't be reached ({error}); check the URL and the network"
        case _:
            return f"the {dependency} database can't be reached: {error}"


def _read_only(dependency: str) -> str:
    return f"the {dependency} database takes no writes; end its recovery or its read-only mode, or point the URL to the primary"


def _require_readable(dependency: str, url: str) -> None:
    """Refuse what asyncpg would take for the local server, or stumble over: a '#' in a password. Raises: PermanentError."""
    try:
        parts = urlsplit(url)
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port  # a property that raises where there is no number behind the colon
    except ValueError as error:
        raise _unreadable(dependency) from error
    if parts.scheme not in {"postgresql", "postgres"}:
        raise _unreadable(dependency)


def _unreadable(dependency: str) -> PermanentError:
    """Without the URL: it may hold a password."""
    return PermanentError(
        f"the {dependency} database's URL can't be read; it should look like postgresql://user:password@host:port/database, "
        "with the special characters of a password percent-encoded (# is %23, / is %2F)"
    )


class Database:
    """A pool of connections to one database; `name` is what errors call it ('source', 'warehouse').

    Connections are opened when they are first needed: a service starts although its database is down. With `writes`, a
    database that is read-only counts as down.
    """

    def __init__(self, name: str, url: SecretStr, *, connections: int, writes: bool = False) -> None:
        self.name = name
        self._url = url
        self._connections = connections
        self._writes = writes
        self._pool: asyncpg.Pool | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the pool; errors inside are classed.

        Raises: DependencyDownError, TransientError, PermanentError.
        """
        with classed_errors(self.name):
            if self._pool is None:
                self._pool = await self._create_pool()
            async with self._pool.acquire(timeout=CONNECT_LIMIT.total_seconds() * 2) as connection, watched(connection):
                yield connection  # type: ignore[misc]  # a proxy that behaves as the connection

    async def probe(self) -> None:
        """Do nothing but ask. Raises: DependencyDownError while the database can't be reached, or takes no writes it should."""
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
        _require_readable(self.name, self._url.get_secret_value())
        return await asyncpg.create_pool(
            self._url.get_secret_value(),
            min_size=0,
            max_size=self._connections,
            timeout=CONNECT_LIMIT.total_seconds(),
            init=_prepare,
            server_settings={**SESSION_SETTINGS, "application_name": "starlift"},
        )


async def _prepare(connection: asyncpg.Connection) -> None:
    limit_silence(connection)


async def copy_out(connection: asyncpg.Connection, query: str, *, null: str) -> tuple[bytes, int]:
    """What a query returns, as CSV without a header, NULL written as `null`; and how many rows it is."""
    pieces: list[bytes] = []

    async def collect(piece: bytes) -> None:
        pieces.append(piece)

    status = await connection.copy_from_query(query, output=collect, format="csv", null=null)
    return b"".join(pieces), int(status.split()[-1])
