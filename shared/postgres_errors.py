"""PostgreSQL's errors, classed by what recovers them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from shared.errors import DependencyDownError, LoginRefusedError, PermanentError, ServerBusyError, TransientError
from shared.postgres_url import CONNECT_LIMIT

_STANDBY_ADVICE = "set hot_standby_feedback = on there, or raise max_standby_streaming_delay"
# asyncpg keeps no reason that the server gave between two statements.
_SEE_LOG = f"its log has the reason (a standby that cancels long reads: {_STANDBY_ADVICE})"
_UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.TargetServerAttributeNotMatched,  # no primary, say, in the middle of a failover
    asyncpg.ReadOnlySQLTransactionError,  # a standby, a primary that was demoted, a disk that ran full
)
# By OpenSSL's numbers (openssl-verification-options(1)): an authority that is not trusted, a name that is not the host's.
_UNTRUSTED = frozenset({18, 19, 20, 21})
_OF_ANOTHER_HOST = frozenset({62, 64})
# PgBouncer's errors, in English: protocol violations at the login, and later the reason why it ends the connection.
_POOLER_REFUSES_LOGIN = re.compile(
    r"authentication failed|no such user|no such database|database .* does not exist|login rejected|(?:SSL|TLS) required"
)
_POOLER_REFUSES_US = re.compile(r"startup parameter|statement pooling mode")
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
    refusal = _explain_refusal(dependency, error)
    if refusal is not None:
        return LoginRefusedError(dependency, refusal)
    if isinstance(error, _UNREACHABLE):  # first: too many connections are a kind of insufficient resources
        return _classed_outage(dependency, error)
    if isinstance(error, _BUSY):
        return ServerBusyError(dependency, _explain_busy(dependency, error))
    if isinstance(error, asyncpg.InternalClientError) and "cannot switch to state" in str(error):
        return _ended_between_statements(dependency)  # the server's last message, which answers no statement, is being read
    if isinstance(error, _MAY_PASS):
        return TransientError(f"{dependency}: {error.args[0]}")
    if isinstance(error, (*_QUOTING, ValueError)):  # the latter: an argument that does not fit
        names = [getattr(error, name, None) for name in ("schema_name", "table_name", "column_name")]
        where = ".".join(name for name in names if name)
        what = f"{type(error).__name__} in {where}" if where else type(error).__name__
        return PermanentError(f"{dependency}: {what}; its text is withheld because it may quote a row")
    if isinstance(error, asyncpg.InterfaceError):
        return _classed_misuse(dependency, error)
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return PermanentError(f"{dependency}: {error}; grant it to the role that Starlift uses")
    return PermanentError(f"{dependency}: {type(error).__name__}: {error.args[0] if error.args else error}")


def refuses_login(error: BaseException) -> bool:
    """Whether a server, or a pooler in front of it, refuses the user or the password."""
    if isinstance(error, asyncpg.PostgresConnectionError):
        return _POOLER_REFUSES_LOGIN.search(str(error)) is not None
    return isinstance(error, asyncpg.InvalidAuthorizationSpecificationError)


def _explain_refusal(dependency: str, error: BaseException) -> str | None:
    """Why a server that answers does not let us in, and what to do, in one sentence; None for any other error."""
    match error:
        case asyncpg.InvalidPasswordError():
            return (
                f"the {dependency} database refuses the user or the password; correct its URL or secret (PGPASSWORD and "
                "~/.pgpass are not read)"
            )
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"the {dependency} database refuses the login ({error}); correct its URL or its pg_hba.conf"
        case asyncpg.InvalidCatalogNameError():
            return f"the {dependency} database does not exist on its server ({error}); create it or correct the URL"
        case asyncpg.PostgresConnectionError() if refuses_login(error):
            return (
                f"a pooler in front of the {dependency} database refuses the login ({error}); correct the database's URL or "
                "secret, or the pooler's users and databases"
            )
        case ssl.SSLCertVerificationError():
            return _explain_certificate(dependency, error)
        case ConnectionError() if "rejected SSL upgrade" in str(error):  # asyncpg's
            return (
                f"the {dependency} database offers no TLS, which its URL requires; switch ssl on there, or, in a network that "
                "you trust, set sslmode=prefer"
            )
        case _:
            return None


def _explain_certificate(dependency: str, error: ssl.SSLCertVerificationError) -> str:
    code, reason = error.verify_code, error.verify_message.rstrip(".")
    if code in _UNTRUSTED:
        return (
            f"the {dependency} database's certificate is not signed by a trusted authority ({reason}); set sslrootcert in its "
            "URL, or PGSSLROOTCERT, to the file with the authority's certificate, or to system for the operating system's"
        )
    if code in _OF_ANOTHER_HOST:
        return (
            f"the {dependency} database's certificate is not valid for the host of its URL ({reason}); use a host name that "
            "the certificate contains, or sslmode=verify-ca, which compares no names"
        )
    return f"the {dependency} database's certificate can't be verified ({reason}); replace it on the server"


def _classed_misuse(dependency: str, error: asyncpg.InterfaceError) -> Exception:
    """Class an InterfaceError: usually the connection ended between two statements, and asyncpg keeps no reason."""
    if isinstance(error.__context__, _RAISED):  # raised on leaving a transaction whose connection has ended
        return _classed(dependency, error.__context__)
    if "closed" in str(error) or "released" in str(error):
        return _ended_between_statements(dependency)
    return TransientError(f"{dependency}: {error}")  # a wrong call of our own would raise it on every attempt


def _classed_outage(dependency: str, error: BaseException) -> Exception:
    if isinstance(error, asyncpg.PostgresConnectionError) and _POOLER_REFUSES_US.search(str(error)):
        advice = "set its pool_mode to transaction" if "pooling" in str(error) else f"remove it from the {dependency} URL"
        return PermanentError(
            f"a pooler in front of the {dependency} database refuses the connection ({error}); {advice}, or point the URL at "
            "the server itself"
        )
    return DependencyDownError(dependency, _explain_unreachable(dependency, error))


def _ended_between_statements(dependency: str) -> Exception:
    return ServerBusyError(dependency, f"the {dependency} database ended the connection between two statements; {_SEE_LOG}")


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
        case asyncpg.LockNotAvailableError():
            return f"another session of the {dependency} database holds a lock ({error.args[0]}); try again once it has ended"
        case _:
            return f"{dependency}: {error.args[0]}"


def _explain_unreachable(dependency: str, error: BaseException) -> str:
    """One sentence: what is wrong with reaching a database, and what to do."""
    match error:
        case asyncpg.ReadOnlySQLTransactionError():
            return explain_read_only(dependency)
        case TimeoutError():
            return f"the {dependency} database does not answer within {CONNECT_LIMIT.seconds} s; check host, port and firewall"
        case asyncpg.TargetServerAttributeNotMatched():
            return (
                f"no host of the {dependency} database is what target_session_attrs asks for; start such a server, or correct "
                "the URL"
            )
        case ConnectionRefusedError():
            return f"nothing listens at the {dependency} database's host and port; start it or correct the URL"
        case OSError():
            return f"the {dependency} database's host can't be reached ({error}); check the URL and the network"
        case _:
            has_no_reason = isinstance(error, asyncpg.ConnectionDoesNotExistError) and ": " not in str(error)
            advice = f"; {_SEE_LOG}" if has_no_reason else ""
            return f"the {dependency} database can't be reached: {error}{advice}"


def explain_read_only(dependency: str) -> str:
    """What to do about a database that is read-only, in one sentence."""
    return f"the {dependency} database is read-only; end its recovery or its read-only mode, or point the URL at the primary"
