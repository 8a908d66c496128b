"""Where a PostgreSQL database is and how to log in, read from its URL and, but for PGSSLROOTCERT, from nothing else.

asyncpg fills what a URL leaves out from PG* variables, ~/.pgpass and ~/.postgresql, each process from its own environment, and
takes unknown parameters for settings of the server. Here every argument is given, so that all processes connect alike.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote

import asyncpg
from pydantic import SecretStr

from shared.errors import PermanentError

CONNECT_LIMIT = timedelta(seconds=10)
DEFAULT_PORT = 5432
# The file whose authorities are trusted where a URL asks for a verified certificate and names none; an image may set it.
ROOT_VARIABLE = "PGSSLROOTCERT"
SYSTEM = "system"  # as a file of authorities: those of the operating system

_URL = re.compile(r"postgres(?:ql)?://(?P<authority>[^/?#]*)(?:/(?P<database>[^?#@]*))?(?:\?(?P<query>[^#@]*))?")
_HOST = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d{0,5}))?")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PARTS = {"host", "port", "user", "password", "dbname"}  # of a URL that libpq also accepts as parameters
_TLS = {"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslnegotiation"}
_PASSED_ON = {"target_session_attrs", "options"}
# libpq's, without effect here: how it keeps a connection alive, what it prefers, what Starlift sets itself.
_DROPPED = {
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "sslcompression",
    "sslsni",
    "tcp_user_timeout",
}
PARAMETERS = _PARTS | _TLS | _PASSED_ON | _DROPPED  # docs/database-urls.md says what becomes of each
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "channel_binding": ("disable", "prefer", "require"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "primary", "standby", "prefer-standby", "read-write", "read-only"),
}


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A URL as asyncpg's arguments. `password` is None where the URL has none.

    `tls` are the ways to connect, tried in this order until the server takes one: a context, or False for none.
    """

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    user: str
    password: SecretStr | None
    database: str
    tls: tuple[ssl.SSLContext | bool, ...]
    is_direct_tls: bool
    target_session_attrs: str
    server_settings: Mapping[str, str]

    async def connect(self, **options: Any) -> asyncpg.Connection:
        """A new connection; `options` are asyncpg's own. Raises: what asyncpg raises."""
        arguments = self._arguments() | options
        for tls in self.tls[:-1]:
            try:
                return await asyncpg.connect(**arguments, ssl=tls)
            except asyncpg.InvalidPasswordError:
                raise
            except (ConnectionError, ssl.SSLError, asyncpg.InvalidAuthorizationSpecificationError):
                continue  # the server has no TLS, or its pg_hba.conf takes this user without it only
        return await asyncpg.connect(**arguments, ssl=self.tls[-1])

    def _arguments(self) -> dict[str, Any]:
        """Each argument that asyncpg would otherwise take from the environment."""
        return {
            "host": list(self.hosts),
            "port": list(self.ports),
            "user": self.user,
            # Not None, for which asyncpg would look in PGPASSWORD and ~/.pgpass.
            "password": self.password.get_secret_value() if self.password else "",
            "database": self.database,
            "direct_tls": self.is_direct_tls,
            "target_session_attrs": self.target_session_attrs,
            "server_settings": {"application_name": "starlift", **self.server_settings},
            "timeout": CONNECT_LIMIT.total_seconds(),
        }


def parse_url(name: str, url: SecretStr) -> PostgresUrl:
    """The URL of the database called `name` in error texts, which never quote a part of the URL that may be secret.

    Raises: PermanentError for a URL that can't be read, an unknown parameter, or a file that it names and that can't be read.
    """
    match = _URL.fullmatch(url.get_secret_value().strip())
    if match is None:
        raise _unreadable(name)
    given = _parameters(name, match["query"] or "")
    login, _, places = match["authority"].rpartition("@")
    user, has_password, password = login.partition(":")
    user = given.get("user") or _decoded(name, user)
    secret = given.get("password") or (_decoded(name, password) if has_password else None)
    hosts = list(_hosts(name, places, given))
    if not user or not all(host for host, _ in hosts):
        missing = "user" if not user else "host"
        raise PermanentError(
            f"the {name} database's URL has no {missing}; it should look like postgresql://user:password@host:port/database"
        )
    tls = _tls(name, given)
    is_direct = given.get("sslnegotiation") == "direct"
    if is_direct and False in tls:
        raise PermanentError(f"the {name} database's URL has sslnegotiation=direct, which needs sslmode=require or stricter")
    return PostgresUrl(
        hosts=tuple(host for host, _ in hosts),
        ports=tuple(port for _, port in hosts),
        user=user,
        password=SecretStr(secret) if secret else None,
        database=given.get("dbname") or _decoded(name, match["database"] or "") or user,
        tls=tls,
        is_direct_tls=is_direct,
        target_session_attrs=given.get("target_session_attrs", "any"),
        server_settings={"options": given["options"]} if "options" in given else {},
    )


def has_login(url: SecretStr) -> bool:
    """Whether a URL names a user."""
    match = _URL.fullmatch(url.get_secret_value().strip())
    return match is None or "@" in match["authority"] or "user" in dict(parse_qsl(match["query"] or ""))


def _unreadable(name: str) -> PermanentError:
    return PermanentError(
        f"the {name} database's URL can't be read; it should look like postgresql://user:password@host:port/database, with the "
        "special characters of a password percent-encoded (# is %23, / is %2F, @ is %40, % is %25)"
    )


def _decoded(name: str, text: str) -> str:
    if _STRAY_PERCENT.search(text):
        raise _unreadable(name)
    return unquote(text)


def _parameters(name: str, query: str) -> dict[str, str]:
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise _unreadable(name) from error
    for parameter, value in given.items():
        if value not in _CHOICES.get(parameter, (value,)):
            choices = ", ".join(_CHOICES[parameter])
            raise PermanentError(f"the {name} database's URL has {parameter}={value}; use one of {choices}")
        if parameter not in PARAMETERS:
            raise PermanentError(
                f"the {name} database's URL has a parameter '{parameter}' that Starlift does not support; remove it from the "
                f"{name} URL"
            )
    return given


def _hosts(name: str, places: str, given: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Each host, or directory of a socket, with its port. A parameter replaces what precedes the path, as in libpq."""
    hosts, ports = [], []
    for place in places.split(","):
        match = _HOST.fullmatch(place)
        if match is None:
            raise _unreadable(name)
        hosts.append(_decoded(name, match["address"] or match["name"]))
        ports.append(match["port"])
    if given.get("host"):
        hosts = given["host"].split(",")
    if given.get("port"):
        ports = given["port"].split(",")
    for number, host in enumerate(hosts):
        port = ports[min(number, len(ports) - 1)] or str(DEFAULT_PORT)
        if not port.isdecimal() or not 0 < int(port) < 2**16:
            raise _unreadable(name)
        yield host, int(port)


def _tls(name: str, given: Mapping[str, str]) -> tuple[ssl.SSLContext | bool, ...]:
    """The ways to connect, as sslmode and the like ask.

    asyncpg can't bind a login to its channel. A verified certificate rules out the same man in the middle, so that is what
    channel_binding=require gets.
    """
    root, is_bound = given.get("sslrootcert"), given.get("channel_binding") == "require"
    mode = given.get("sslmode", "verify-full" if root == SYSTEM else "prefer")
    if root == SYSTEM and mode != "verify-full":  # libpq's rule: anybody can have a certificate of a public authority
        raise PermanentError(f"the {name} database's URL has sslmode={mode}, but sslrootcert=system needs sslmode=verify-full")
    if is_bound and mode == "disable":
        raise PermanentError(f"the {name} database's URL has channel_binding=require, which needs TLS; remove sslmode=disable")
    mode = "verify-full" if is_bound else mode
    if mode == "disable":
        return (False,)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["postgresql"])  # sslnegotiation=direct requires it
    context.check_hostname = mode == "verify-full"
    is_verified = mode.startswith("verify") or (mode == "require" and root is not None)
    context.verify_mode = ssl.CERT_REQUIRED if is_verified else ssl.CERT_NONE
    if is_verified:
        _trust_authorities(name, context, given)
    if "sslcert" in given:
        with _unusable_files_named(name, {part: given[part] for part in ("sslcert", "sslkey") if part in given}):
            context.load_cert_chain(given["sslcert"], given.get("sslkey"), password=given.get("sslpassword", ""))
    return (context, False) if mode in {"allow", "prefer"} else (context,)


def _trust_authorities(name: str, context: ssl.SSLContext, given: Mapping[str, str]) -> None:
    root = given.get("sslrootcert") or os.environ.get(ROOT_VARIABLE) or SYSTEM
    if root == SYSTEM:
        context.load_default_certs()
        return
    with _unusable_files_named(name, {"sslrootcert": root} if "sslrootcert" in given else {ROOT_VARIABLE: root}):
        context.load_verify_locations(cafile=root)


@contextmanager
def _unusable_files_named(name: str, files: Mapping[str, str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # SSLError is one: the file holds no certificate
        origin = "the environment" if ROOT_VARIABLE in files else f"the {name} database's URL"
        found = " and ".join(f"{parameter}={path}" for parameter, path in files.items())
        raise PermanentError(
            f"{origin} has {found}, which can't be used ({error.strerror or 'not PEM'}); correct the path or its permissions"
        ) from error
