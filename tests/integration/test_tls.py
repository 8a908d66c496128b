"""Every sslmode on a real server whose certificate is signed by an authority of our own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import pytest
from pydantic import SecretStr

from infra.local.databases import execute, fetch_value
from shared.errors import LoginRefusedError
from shared.postgres import Database
from tests.fixtures.authority import DAY, Authority
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.scratch_cluster import ScratchCluster, scratch


@dataclass(frozen=True)
class Server:
    """A server with a certificate for `localhost`, its authority, and one that has signed nothing."""

    cluster: ScratchCluster
    authority: Authority
    stranger: Authority

    def url(self, host: str, parameters: str) -> SecretStr:
        """Where it is, with the authorities' files in place of {ca} and {other}."""
        parameters = parameters.format(ca=self.authority.file, other=self.stranger.file)
        return SecretStr(f"{self.cluster.url().replace('127.0.0.1', host)}?{parameters}")

    def present(self, until: datetime) -> None:
        """Replace its certificate."""
        for name, content in zip(("server.crt", "server.key"), self.authority.sign("localhost", until), strict=True):
            file = self.cluster.data / name
            file.write_bytes(content)
            file.chmod(0o600)
            os.chown(file, self.cluster.data.stat().st_uid, -1)
        execute(self.cluster.url(), "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("tls")
    with scratch("tls", place / "server") as cluster:
        found = Server(cluster, Authority("ours", place), Authority("stranger", place))
        try:
            found.present(datetime.now(UTC) + DAY)
        except asyncpg.InvalidParameterValueError:
            pytest.skip("this PostgreSQL is built without TLS (the wheel's is); install one, or set PG_BIN")
        yield found


async def uses_tls(url: SecretStr) -> bool:
    async with aclosing(Database("source", url, connections=1)) as database, database.connection() as connection:
        return bool(await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))


@pytest.mark.parametrize(
    ("host", "parameters", "is_encrypted"),
    [
        ("localhost", "sslmode=verify-full&sslrootcert={ca}", True),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert={ca}", True),
        ("127.0.0.1", "sslmode=require&sslrootcert={ca}", True),
        ("127.0.0.1", "sslmode=require", True),
        ("127.0.0.1", "sslmode=prefer", True),
        ("127.0.0.1", "sslmode=allow", True),
        ("127.0.0.1", "sslmode=disable", False),
        ("localhost", "sslmode=require&channel_binding=require&sslrootcert={ca}", True),
    ],
)
async def test_a_mode_connects_as_it_says(server: Server, host: str, parameters: str, is_encrypted: bool) -> None:  # noqa: FBT001
    assert await uses_tls(server.url(host, parameters)) is is_encrypted


OF_ANOTHER_HOST = (
    r"^the source database's certificate is not valid for the host of its URL \(IP address mismatch, certificate is not valid "
    r"for '127.0.0.1'\); use a host name that the certificate contains, or sslmode=verify-ca, which compares no names$"
)
UNTRUSTED = (
    r"^the source database's certificate is not signed by a trusted authority \(.*\); set sslrootcert in its URL, or "
    r"PGSSLROOTCERT, to the file with the authority's certificate, or to system for the operating system's$"
)


@pytest.mark.parametrize(
    ("host", "parameters", "sentence"),
    [
        (
            "127.0.0.1",
            "sslmode=verify-full&sslrootcert={ca}",
            OF_ANOTHER_HOST,
        ),
        ("localhost", "sslmode=verify-full&sslrootcert={other}", UNTRUSTED),
        ("localhost", "sslmode=verify-full", UNTRUSTED),
        ("localhost", "sslrootcert=system", UNTRUSTED),
        ("localhost", "sslmode=prefer&channel_binding=require", UNTRUSTED),
    ],
)
async def test_a_certificate_that_is_not_accepted_is_explained(
    server: Server, host: str, parameters: str, sentence: str
) -> None:
    with pytest.raises(LoginRefusedError, match=sentence):
        await uses_tls(server.url(host, parameters))


async def test_the_environment_may_name_the_authorities(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", str(server.authority.file))
    assert await uses_tls(server.url("localhost", "sslmode=verify-full"))
    with pytest.raises(LoginRefusedError, match=UNTRUSTED):
        await uses_tls(server.url("localhost", "sslmode=verify-full&sslrootcert=system"))


async def test_an_expired_certificate_is_explained(server: Server) -> None:
    server.present(datetime.now(UTC) - DAY)
    try:
        with pytest.raises(
            LoginRefusedError, match=r"can't be verified \(certificate has expired\); replace it on the server$"
        ):
            await uses_tls(server.url("localhost", "sslmode=verify-full&sslrootcert={ca}"))
    finally:
        server.present(datetime.now(UTC) + DAY)


async def test_a_server_without_tls_is_named(postgres_cluster: TestCluster) -> None:
    url = postgres_cluster.url()
    assert fetch_value(url, "SHOW ssl") == "off"
    with pytest.raises(LoginRefusedError, match=r"^the source database offers no TLS, which its URL requires; switch ssl on"):
        await uses_tls(SecretStr(f"{url}?sslmode=require"))
