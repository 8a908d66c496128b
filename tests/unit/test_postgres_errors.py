"""What an error of PostgreSQL means for a message, by what recovers it."""

from __future__ import annotations

import asyncpg
import pytest
from asyncpg.exceptions._base import DataError as ArgumentError

from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.postgres import classed_errors


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (asyncpg.DeadlockDetectedError("deadlock detected"), TransientError, "warehouse: deadlock detected"),
        (asyncpg.SerializationError("could not serialize"), TransientError, "warehouse: could not serialize"),
        (asyncpg.LockNotAvailableError("lock timeout"), TransientError, "lock timeout"),
        (asyncpg.QueryCanceledError("statement timeout"), TransientError, "statement timeout"),
        (asyncpg.DiskFullError("no space left"), TransientError, "no space left"),
        (asyncpg.ObjectInUseError("in use"), TransientError, "in use"),
        (asyncpg.InterfaceError("connection is closed"), TransientError, "connection is closed"),
        (asyncpg.InternalClientError("got result for unknown protocol state"), TransientError, "unknown protocol state"),
        (ConnectionRefusedError(), DependencyDownError, "nothing listens at the warehouse database's host and port"),
        (ConnectionResetError(), DependencyDownError, "the warehouse database's host can't be reached"),
        (TimeoutError(), DependencyDownError, "does not answer within 10 s"),
        (asyncpg.CannotConnectNowError("starting up"), DependencyDownError, "can't be reached: starting up"),
        (asyncpg.AdminShutdownError("terminating connection"), DependencyDownError, "terminating connection"),
        (asyncpg.CrashShutdownError("crash of another server process"), DependencyDownError, "crash of another"),
        (asyncpg.ConnectionDoesNotExistError("closed in the middle"), DependencyDownError, "closed in the middle"),
        (asyncpg.TooManyConnectionsError("too many clients"), DependencyDownError, "too many clients"),
        (asyncpg.ReadOnlySQLTransactionError("read-only"), DependencyDownError, "takes no writes"),
        (asyncpg.InvalidPasswordError("password"), DependencyDownError, "refuses the user or the password"),
        (asyncpg.InvalidCatalogNameError("no database"), DependencyDownError, "has no such database"),
        (asyncpg.InsufficientPrivilegeError("permission denied"), PermanentError, "grant it to the role that Starlift uses"),
        (asyncpg.CheckViolationError("violates check"), PermanentError, "CheckViolationError: violates check"),
        (asyncpg.UndefinedColumnError("no such column"), PermanentError, "UndefinedColumnError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_of_postgresql_is_classed_by_what_recovers_it(error: Exception, expected: type[Exception], text: str) -> None:
    with pytest.raises(expected) as raised, classed_errors("warehouse"):
        raise error
    assert text in str(raised.value)


ROW = "Ann Smith 4711"


def server_error(kind: type[asyncpg.PostgresError], **fields: str) -> asyncpg.PostgresError:
    """An error as asyncpg makes it of what the server sends."""
    error = kind(fields.pop("message"))
    for name, value in fields.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (server_error(asyncpg.InvalidTextRepresentationError, message=f'invalid input syntax for type uuid: "{ROW}"'), ""),
        (ArgumentError(f"invalid input for query argument $1: '{ROW}'"), "DataError"),
        (server_error(asyncpg.RaiseError, message=f"no such customer: {ROW}", table_name="staff"), " in staff"),
        (server_error(asyncpg.UniqueViolationError, message="duplicate key", detail=f"Key (name)=({ROW})"), "duplicate key"),
        (server_error(asyncpg.DeadlockDetectedError, message="deadlock", detail=f"while updating {ROW}"), "deadlock"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_the_text_of_an_error_quotes_no_row(error: Exception, told: str) -> None:
    with pytest.raises((PermanentError, TransientError)) as raised, classed_errors("warehouse"):
        raise error
    assert ROW not in str(raised.value)
    assert told in str(raised.value)
