"""URLs as providers print them, on a real server: each works, or is refused in a sentence that names its parameter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, urlsplit

import pytest
from pydantic import SecretStr

from infra.local.databases import READER
from infra.local.machine import LOOPBACK, free_port
from shared.errors import DependencyDownError
from shared.postgres import Database
from tests.fixtures.plans import problems_of
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.totesys import CONTRACT


@pytest.fixture
def url(postgres_cluster: TestCluster, source_database: str) -> str:
    return postgres_cluster.url(source_database, READER)


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError), closing(writer):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def other_ways_to(port: int) -> AsyncIterator[tuple[int, Path]]:
    """A port on ::1 and the directory of a socket that lead to the server at `port`. Clients have to leave before the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(LOOPBACK, port)
        await asyncio.gather(pass_on(reader, server_writer), pass_on(server_reader, writer))

    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))  # short: a socket's path has 107 characters at most
        at_socket = await asyncio.start_unix_server(serve, directory / ".s.PGSQL.5432")
        stack.push_async_callback(at_socket.wait_closed)
        stack.callback(at_socket.close)
        try:
            at_address = await asyncio.start_server(serve, "::1", 0)
        except OSError:
            pytest.skip("this machine has no IPv6")
        stack.push_async_callback(at_address.wait_closed)
        stack.callback(at_address.close)
        yield at_address.sockets[0].getsockname()[1], directory


async def answer(url: str, query: str = "SELECT current_user") -> object:
    async with aclosing(Database("source", SecretStr(url), connections=1)) as database, database.transaction() as connection:
        return await connection.fetchval(query)


@pytest.mark.parametrize(
    "parameters",
    [
        "sslmode=prefer&channel_binding=prefer",
        "connect_timeout=10&application_name=psql",
        "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5&tcp_user_timeout=1000",
        "gssencmode=disable&krbsrvname=postgres&sslsni=1",
        "target_session_attrs=primary&load_balance_hosts=random",
        "target_session_attrs=read-write&sslmode=allow",
        "target_session_attrs=prefer-standby&sslmode=disable",
    ],
)
async def test_parameters_of_providers_work(url: str, parameters: str) -> None:
    assert await answer(f"{url}?{parameters}") == READER


async def test_options_reach_the_server(url: str) -> None:
    assert await answer(f"{url}?options=-c%20geqo_threshold%3D7", "SELECT current_setting('geqo_threshold')") == "7"


@pytest.mark.parametrize("parameter", ["schema=public", "pgbouncer=true", "connection_limit=5", "sslcrl=/x", "passfile=/x"])
async def test_another_parameter_is_refused_by_name(url: str, parameter: str) -> None:
    name = parameter.partition("=")[0]
    assert await problems_of(CONTRACT, source=f"{url}?{parameter}") == [
        f"the source database's URL has a parameter '{name}' that Starlift does not support; remove it from the source URL"
    ]


async def test_a_server_may_be_an_ipv6_address_a_socket_or_the_second_of_several_hosts(url: str) -> None:
    parts = urlsplit(url)
    assert parts.port is not None
    login, path = f"{READER}:{parts.password}", parts.path
    async with other_ways_to(parts.port) as (port, directory):
        for other in (
            f"postgresql://{login}@[::1]:{port}{path}",
            f"postgresql://{login}@/{path[1:]}?host={directory}",
            f"postgresql://{login}@{quote(str(directory), safe='')}{path}",
            f"postgresql://{login}@{quote(str(directory), safe='')}{path}?sslmode=verify-full",  # no socket is encrypted
            f"postgresql://{login}@{LOOPBACK}:{free_port()},[::1]:{port}{path}",
            f"postgresql://{login}@{LOOPBACK}:{free_port()},{LOOPBACK}:{parts.port}{path}?target_session_attrs=primary",
        ):
            assert await answer(other) == READER


async def test_a_server_of_another_kind_than_asked_for_is_an_outage(url: str) -> None:
    with pytest.raises(DependencyDownError, match=r"^no host of the source database is what target_session_attrs asks for; "):
        await answer(f"{url}?target_session_attrs=standby")
