"""A real PgBouncer in front of source and warehouse."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from contracts.messages import Mode
from infra.local.databases import LOADER, READER
from shared.errors import DependencyDownError, LoginRefusedError, PermanentError
from shared.postgres import Database
from tests.fixtures.authority import DAY, Authority
from tests.fixtures.limits import HANG_S
from tests.fixtures.pgbouncer import pgbouncer
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.plans import problems_of
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import SCHEMA, SHOP

# Each transaction gets another session than the one before it, as with many clients.
SHUFFLED = {"pool_mode": "transaction", "server_round_robin": 1}


def through(port: int, url: str) -> str:
    return re.sub(r":\d+/", f":{port}/", url)


@asynccontextmanager
async def pooled(port: int, cluster: TestCluster, source: str, warehouse: str) -> AsyncIterator[Pipeline]:
    urls = through(port, cluster.url(source, READER)), through(port, cluster.url(warehouse, LOADER))
    async with open_pipeline(*urls) as pipeline:
        yield pipeline.reading(SHOP)


@pytest.mark.parametrize("settings", [SHUFFLED, {"pool_mode": "session"}], ids=lambda settings: settings["pool_mode"])
async def test_both_databases_may_be_behind_pgbouncer(
    owner: asyncpg.Connection,
    postgres_cluster: TestCluster,
    source_database: str,
    warehouse_database: str,
    settings: dict[str, Any],
) -> None:
    """The first load, later batches, deletes, the plan, the proof and its repair: all that opens sessions."""
    await owner.execute(SCHEMA)
    await owner.execute("INSERT INTO maker SELECT n, 'maker ' || n, 'Leeds', n FROM generate_series(1, 300) AS n")
    await owner.execute(
        "INSERT INTO item SELECT n, n % 300 + 1, n, 1.5, 'abc', 'x', true, now(), now(), now(), 'calm', "
        "'2026-01-01', 'GBP' FROM generate_series(1, 3000) AS n"
    )
    with pgbouncer(postgres_cluster, READER, LOADER, **settings) as port:
        async with pooled(port, postgres_cluster, source_database, warehouse_database) as shop:
            await shop.cut(1000).run()
            assert (await shop.verify()).is_equal
            await owner.execute("UPDATE item SET mood = 'wild' WHERE item_id % 7 = 0; DELETE FROM item WHERE item_id = 3")
            await shop.run(compare_keys=True)
            assert (await shop.verify()).is_equal
            await shop.select("UPDATE dim_maker SET town = 'York' WHERE maker_id = 5")
            assert not (await shop.verify()).is_equal
            await shop.run(Mode.FULL)
            assert (await shop.verify()).is_equal
        urls = [
            through(port, postgres_cluster.url(*where)) for where in ((source_database, READER), (warehouse_database, LOADER))
        ]
        assert await problems_of(SHOP, source=urls[0], warehouse=urls[1]) == []


async def fail(port: int, url: str, *, parameters: str = "") -> str:
    database = Database("source", SecretStr(through(port, url) + parameters), connections=1)
    async with aclosing(database):
        with pytest.raises((LoginRefusedError, PermanentError)) as caught:
            await database.probe()
    return str(caught.value)


async def test_what_pgbouncer_refuses_is_refused_in_one_sentence_and_no_outage(
    postgres_cluster: TestCluster, source_database: str
) -> None:
    url = postgres_cluster.url(source_database, READER)
    password = str(urlsplit(url).password)
    with pgbouncer(postgres_cluster, READER, pool_mode="transaction") as port:
        for refused, parameters, sentence in [
            (
                url,
                "?options=-cjit%3Doff",
                "refuses the connection (unsupported startup parameter: options); remove it from the",
            ),
            (url, "?sslmode=require", "offers no TLS, which its URL requires"),
            (url.replace(password, "guess"), "", "refuses the login"),
            (url.replace(f"{READER}:", "somebody:"), "", "refuses the login"),
        ]:
            assert sentence in await fail(port, refused, parameters=parameters)
        assert "does not exist); correct the database's URL" in await fail(port, url.replace(source_database, "elsewhere"))
    with pgbouncer(postgres_cluster, READER, pool_mode="statement") as port:
        assert "statement pooling mode); set its pool_mode to transaction, or point" in await fail(port, url)


async def test_pgbouncer_with_a_certificate_verifies_as_a_server_does(
    postgres_cluster: TestCluster, source_database: str, tmp_path: Path
) -> None:
    url = postgres_cluster.url(source_database, READER).replace("127.0.0.1", "localhost")
    authority = Authority("ours", tmp_path)
    certificate = authority.sign("localhost", datetime.now(UTC) + DAY)
    with pgbouncer(postgres_cluster, READER, certificate=certificate, pool_mode="transaction") as port:
        verified = SecretStr(through(port, url) + f"?sslmode=verify-full&sslrootcert={authority.file}")
        async with aclosing(Database("source", verified, connections=1)) as database:
            await database.probe()
        assert "not signed by a trusted authority" in await fail(port, url, parameters="?sslmode=verify-full")
        assert "refuses the login (SSL required)" in await fail(port, url, parameters="?sslmode=disable")


async def test_a_server_that_is_down_behind_pgbouncer_is_an_outage_that_ends(second_postgres_cluster: TestCluster) -> None:
    limits: dict[str, Any] = {"server_login_retry": 1, "query_wait_timeout": 3}  # seconds; by default 15 and 120
    with pgbouncer(second_postgres_cluster, "postgres", pool_mode="transaction", **limits) as port:
        url = SecretStr(through(port, second_postgres_cluster.url()))
        async with aclosing(Database("source", url, connections=1)) as database:
            await database.probe()
            second_postgres_cluster.stop()
            with pytest.raises(DependencyDownError) as caught:
                await database.probe()
            assert not isinstance(caught.value, LoginRefusedError)
            second_postgres_cluster.start(int(second_postgres_cluster.port or 0))
            async with asyncio.timeout(HANG_S):
                while not await answers(database):  # noqa: ASYNC110 (the pooler announces nothing)
                    await asyncio.sleep(0.1)


async def answers(database: Database) -> bool:
    with suppress(DependencyDownError):
        await database.probe()
        return True
    return False
