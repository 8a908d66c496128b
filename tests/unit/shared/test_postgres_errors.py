"""Errors of PostgreSQL are classified by what recovers them."""

from __future__ import annotations

import ssl

import asyncpg
import pytest
from asyncpg.exceptions._base import DataError as ArgumentError

from shared.errors import DependencyDownError, LoginRefusedError, PermanentError, ServerBusyError, TransientError
from shared.postgres_errors import classed_errors


def certificate_error(code: int, message: str) -> ssl.SSLCertVerificationError:
    """The error that OpenSSL makes of a certificate."""
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (asyncpg.DeadlockDetectedError("deadlock detected"), ServerBusyError, "warehouse: deadlock detected"),
        (asyncpg.SerializationError("could not serialize"), ServerBusyError, "warehouse: could not serialize"),
        (asyncpg.LockNotAvailableError("lock timeout"), ServerBusyError, "lock timeout"),
        (asyncpg.DiskFullError("no space left"), ServerBusyError, "the warehouse database's disk is full (no space left)"),
        (asyncpg.OutOfMemoryError("failed on request of size 8"), ServerBusyError, "the warehouse database is out of memory"),
        (asyncpg.QueryCanceledError("statement timeout"), TransientError, "statement timeout"),
        (asyncpg.ConfigurationLimitExceededError("temporary file size"), TransientError, "temporary file size"),
        (
            asyncpg.ProtocolViolationError("unsupported startup parameter: options"),
            PermanentError,
            "a pooler in front of the ware",
        ),
        (
            asyncpg.ConnectionDoesNotExistError(
                "connection was closed: transaction blocks not allowed in statement pooling mode"
            ),
            PermanentError,
            "set its pool_mode to transaction, or point the URL at the server itself",
        ),
        (
            asyncpg.ProtocolViolationError("SASL authentication failed"),
            LoginRefusedError,
            "a pooler in front of the warehouse database refuses the login (SASL authentication failed)",
        ),
        (asyncpg.ProtocolViolationError("no such user: me"), LoginRefusedError, "the pooler's users and databases"),
        (asyncpg.ProtocolViolationError("no more connections allowed"), DependencyDownError, "no more connections allowed"),
        (asyncpg.ObjectInUseError("in use"), TransientError, "in use"),
        (asyncpg.InterfaceError("connection is closed"), ServerBusyError, "ended the connection between two statements"),
        (asyncpg.InterfaceError("another operation is in progress"), TransientError, "another operation is in progress"),
        (
            asyncpg.InternalClientError("cannot switch to state 14; another operation (3) is in progress"),
            ServerBusyError,
            "ended the connection between two statements",
        ),
        (asyncpg.InternalClientError("got result for unknown protocol state"), TransientError, "unknown protocol state"),
        (ConnectionRefusedError(), DependencyDownError, "nothing listens at the warehouse database's host and port"),
        (ConnectionResetError(), DependencyDownError, "the warehouse database's host can't be reached"),
        (certificate_error(10, "certificate has expired"), LoginRefusedError, "can't be verified (certificate has expired); r"),
        (certificate_error(18, "self-signed certificate"), LoginRefusedError, "set sslrootcert in its URL, or PGSSLROOTCERT,"),
        (
            certificate_error(62, "Hostname mismatch, certificate is not valid for 'db'."),
            LoginRefusedError,
            "is not valid for the host of its URL (Hostname mismatch, certificate is not valid for 'db'); use a host name",
        ),
        (
            ConnectionError('PostgreSQL server at "db:5432" rejected SSL upgrade'),
            LoginRefusedError,
            "offers no TLS, which its URL requires",
        ),
        (TimeoutError(), DependencyDownError, "does not answer within 10 s"),
        (asyncpg.CannotConnectNowError("starting up"), DependencyDownError, "can't be reached: starting up"),
        (asyncpg.AdminShutdownError("terminating connection"), DependencyDownError, "terminating connection"),
        (asyncpg.CrashShutdownError("crash of another server process"), DependencyDownError, "crash of another"),
        (asyncpg.ConnectionDoesNotExistError("closed in the middle"), DependencyDownError, "closed in the middle"),
        (asyncpg.TooManyConnectionsError("too many clients"), DependencyDownError, "too many clients"),
        (asyncpg.ReadOnlySQLTransactionError("read-only"), DependencyDownError, "is read-only"),
        (asyncpg.InvalidPasswordError("password"), LoginRefusedError, "refuses the user or the password"),
        (asyncpg.InvalidCatalogNameError("no database"), LoginRefusedError, "does not exist on its server"),
        (asyncpg.InsufficientPrivilegeError("permission denied"), PermanentError, "grant it to the role that Starlift uses"),
        (asyncpg.CheckViolationError("violates check"), PermanentError, "CheckViolationError: violates check"),
        (asyncpg.UndefinedColumnError("no such column"), PermanentError, "UndefinedColumnError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_postgresql_error_is_classified_by_what_recovers_it(error: Exception, expected: type[Exception], text: str) -> None:
    with pytest.raises(expected) as raised, classed_errors("warehouse"):
        raise error
    assert text in str(raised.value)


@pytest.mark.parametrize("kind", [asyncpg.SerializationError, asyncpg.DeadlockDetectedError])
@pytest.mark.parametrize("function", ["ProcessInterrupts", "ProcessRecoveryConflictInterrupt"])  # until 16, and from then on
def test_a_read_cancelled_by_a_standby_is_explained_in_any_server_language(
    kind: type[asyncpg.PostgresError], function: str
) -> None:
    error = server_error(
        kind, message="storniere Anfrage wegen Konflikt mit der Wiederherstellung", server_source_function=function
    )
    advice = "set hot_standby_feedback = on there, or raise max_standby_streaming_delay"
    with pytest.raises(ServerBusyError, match=advice), classed_errors("source"):
        raise error


ROW = "Ann Smith 4711"


def server_error(kind: type[asyncpg.PostgresError], **fields: str) -> asyncpg.PostgresError:
    """The error that asyncpg makes of a server's fields."""
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
def test_an_error_text_never_quotes_a_row(error: Exception, told: str) -> None:
    with pytest.raises((PermanentError, TransientError, ServerBusyError)) as raised, classed_errors("warehouse"):
        raise error
    assert ROW not in str(raised.value)
    assert told in str(raised.value)
