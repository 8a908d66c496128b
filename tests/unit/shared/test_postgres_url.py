from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.errors import PermanentError
from shared.postgres_url import PostgresUrl, has_login, parse_url

BASE = "postgresql://reader:hunter2@db/shop"


def read(url: str) -> PostgresUrl:
    return parse_url("source", SecretStr(url))


def login(url: PostgresUrl) -> tuple[str, str | None]:
    return url.user, url.password.get_secret_value() if url.password else None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://me:p%40ss@db:6543/my%20shop", (("db",), (6543,), "me", "p@ss", "my shop")),
        ("  postgresql://me:p@ss@db/shop\n", (("db",), (5432,), "me", "p@ss", "shop")),
        ("postgresql://me@db:pw@db/shop", (("db",), (5432,), "me@db", "pw", "shop")),
        ("postgresql://me:a:b[c@[::1]:5433/shop", (("::1",), (5433,), "me", "a:b[c", "shop")),
        ("postgresql://me@a,b:2/shop", (("a", "b"), (5432, 2), "me", None, "shop")),
        ("postgresql://me@db", (("db",), (5432,), "me", None, "me")),
        (
            "postgresql:///shop?host=/run/postgresql&port=5433&user=me&password=pw",
            (("/run/postgresql",), (5433,), "me", "pw", "shop"),
        ),
        (  # as Google's Cloud SQL prints it
            "postgresql://me:pw@localhost/shop?host=/cloudsql/one:two:three",
            (("/cloudsql/one:two:three",), (5432,), "me", "pw", "shop"),
        ),
        ("postgresql://me@a:1,b:/shop?host=c,d", (("c", "d"), (1, 5432), "me", None, "shop")),
        ("postgresql://me:pw@a/b?user=you&password=other&dbname=c&port=6", (("a",), (6,), "you", "other", "c")),
        ("postgresql://me@%2Frun%2Fpostgresql/?dbname=shop", (("/run/postgresql",), (5432,), "me", None, "shop")),
    ],
)
def test_a_url_names_server_database_and_user(url: str, expected: object) -> None:
    found = read(url)
    assert (found.hosts, found.ports, *login(found), found.database) == expected


def test_a_password_is_never_shown() -> None:
    assert "hunter2" not in repr(read(BASE))


@pytest.mark.parametrize(
    "parameters",
    [
        "sslmode=prefer&channel_binding=prefer",
        "connect_timeout=10",
        "keepalives=1&keepalives_idle=30",
        "gssencmode=disable",
        "fallback_application_name=psql&load_balance_hosts=random",
        "sslnegotiation=postgres",
    ],
)
def test_libpq_parameters_without_a_meaning_here_are_dropped(parameters: str) -> None:
    found, bare = read(f"{BASE}?{parameters}"), read(BASE)
    assert (found.hosts, found.database, found.server_settings) == (bare.hosts, bare.database, bare.server_settings)


def test_parameters_that_select_the_server_are_passed_on() -> None:
    found = read(f"{BASE}?target_session_attrs=standby&options=endpoint%3Done")
    assert (found.target_session_attrs, found.server_settings) == ("standby", {"options": "endpoint=one"})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"{BASE}?schema=public", "has a parameter 'schema' that Starlift does not support; remove it from the source URL"),
        (f"{BASE}?pgbouncer=true", "has a parameter 'pgbouncer' that Starlift does not support; remove it from the source URL"),
        (f"{BASE}?sslmode=perhaps", "has sslmode=perhaps; use one of disable, allow, prefer, require, verify-ca, verify-full"),
        (f"{BASE}?target_session_attrs=any-old", "has target_session_attrs=any-old; use one of any, primary, standby"),
        (f"{BASE}?sslmode=require&sslrootcert=system", "has sslmode=require, but sslrootcert=system needs sslmode=verify-full"),
        (f"{BASE}?channel_binding=yes", "has channel_binding=yes; use one of disable, prefer, require"),
        (f"{BASE}?sslmode=disable&channel_binding=require", "has channel_binding=require, which needs TLS; remove sslmode=dis"),
        (f"{BASE}?sslnegotiation=direct", "has sslnegotiation=direct, which needs sslmode=require or stricter"),
        ("postgresql://db/shop", "has no user; it should look like postgresql://user:password@host:port/database"),
        ("postgresql:///shop?user=me", "has no host; it should look like postgresql://user:password@host:port/database"),
    ],
)
def test_the_error_of_a_bad_url_names_the_problem(url: str, expected: str) -> None:
    with pytest.raises(PermanentError) as caught:
        read(url)
    assert str(caught.value).startswith(f"the source database's URL {expected}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "verified", "checked"),
    [
        ("sslmode=require", False, False),
        ("sslmode=verify-ca", True, False),
        ("sslmode=verify-full", True, True),
        ("sslrootcert=system", True, True),
        ("sslmode=require&channel_binding=require", True, True),  # as Neon hands it out
    ],
)
def test_a_strict_mode_connects_only_with_tls(parameters: str, verified: bool, checked: bool) -> None:  # noqa: FBT001
    (context,) = read(f"{BASE}?{parameters}").tls
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname) == (verified, checked)


def test_the_other_modes_fall_back_to_a_connection_without_tls() -> None:
    assert [isinstance(way, ssl.SSLContext) for way in read(BASE).tls] == [True, False]
    assert read(f"{BASE}?sslmode=disable").tls == (False,)


@pytest.mark.parametrize(
    "parameters", ["sslmode=verify-full&sslrootcert={0}", "sslmode=require&sslcert={0}", "sslcert={0}&sslkey={0}.key"]
)
def test_an_unusable_file_in_a_url_is_named(parameters: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    for content in (None, "not a certificate"):
        if content is not None:
            file.write_text(content)
        with pytest.raises(PermanentError, match=rf"^the source database's URL has ssl\w+={file}.*, which can't be used \("):
            read(f"{BASE}?{parameters.format(file)}")


def test_an_unusable_file_in_the_environment_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", str(tmp_path / "ca.pem"))
    with pytest.raises(PermanentError, match=rf"^the environment has PGSSLROOTCERT={tmp_path}/ca.pem, which can't be used \("):
        read(f"{BASE}?sslmode=verify-full")
    assert read(f"{BASE}?sslrootcert=system").tls
    assert read(BASE).tls


@pytest.mark.parametrize(("url", "has"), [("postgresql://db:1/x", False), (BASE, True), ("postgresql://db/x?user=me", True)])
def test_a_url_may_leave_the_login_to_a_secret(url: str, has: bool) -> None:  # noqa: FBT001
    assert has_login(SecretStr(url)) is has
