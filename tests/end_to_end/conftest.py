"""Starlift as a user runs it: the real command, in real processes, on the user's own databases."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from infra.local import processes
from infra.local.databases import LOADER, READER, SOURCE_OWNER, execute, fetch_value
from infra.local.processes import ProcessId
from infra.local.stack import Stack
from infra.local.state import Home, StackState
from services.operator.local.totesys.fill import connect, create, fill
from tests.fixtures.command import Answer, run_starlift
from tests.fixtures.limits import HANG, HANG_S
from tests.fixtures.postgres_cluster import TestCluster

ORDERS = 300
# Seconds between the runs of the stack that the tests share: nearly all of them ask for the runs that they need, and each run
# takes CPU time from the tests beside them.
RUN_EVERY = "5"


@dataclass
class Starlift:
    """One state directory, and the commands that are run with it.

    `seen` is every process that was ever in its stack, except our own where a test drives a `Stack`.
    """

    home: Path
    seen: set[ProcessId] = field(default_factory=set)

    def __call__(self, *arguments: str, expected: int | None = 0, **environment: str) -> Answer:
        """Run a command to its end. Fails unless it exits with `expected` (None: any code)."""
        answer = run_starlift(*arguments, environment=self.environment(**environment))
        self._note()
        assert expected is None or answer.code == expected, f"{arguments} ended with {answer.code}: {answer.out}{answer.err}"
        return answer

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "services.operator", *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """Our own environment without variables of Starlift, AWS or PostgreSQL."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STARLIFT_", "AWS_", "PG"))}
        return kept | {"STARLIFT_HOME": str(self.home)} | more

    @property
    def state(self) -> StackState:
        """The running processes recorded in the stack's file."""
        found = Home(self.home).read()
        assert found is not None
        return found

    @property
    def alive(self) -> set[ProcessId]:
        """The processes that were ever in the stack and are still alive."""
        self._note()
        return {process for process in self.seen if processes.find(process) is not None}

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()

    def _note(self) -> None:
        found = Home(self.home).read()
        if found is not None:
            self.seen |= {found.owner, *found.processes.values()} - {processes.own_id()}


@dataclass(frozen=True, slots=True)
class Databases:
    """A user's own source and warehouse. `reader` may only SELECT; `owner` is the application."""

    owner: str
    reader: str
    warehouse: str

    @property
    def urls(self) -> dict[str, str]:
        """The variables that tell `starlift up` of them."""
        return {"STARLIFT_SOURCE_URL": self.reader, "STARLIFT_WAREHOUSE_URL": self.warehouse}

    def write(self, *statements: str) -> None:
        """Execute the application's statements, each in its own transaction."""
        execute(self.owner, *statements)

    def read(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Rows of the warehouse."""
        return [dict(row) for row in asyncio.run(_fetch(self.warehouse, query, arguments))]


async def _fetch(url: str, query: str, arguments: tuple[object, ...]) -> list[asyncpg.Record]:
    connection = await connect(url)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


async def _fill(url: str, orders: int) -> None:
    connection = await connect(url)
    try:
        await create(connection)
        await fill(connection, orders=orders, seed=1)
    finally:
        await connection.close()


@contextmanager
def databases_of(cluster: TestCluster, *, orders: int) -> Iterator[Databases]:
    """Two databases that are dropped at the end; with `orders` the source is filled, without it is empty."""
    source, warehouse = cluster.create_database(), cluster.create_warehouse()
    try:
        owner = cluster.url(source, SOURCE_OWNER)
        if orders:
            asyncio.run(_fill(owner, orders))
        yield Databases(owner, cluster.url(source, READER), cluster.url(warehouse, LOADER))
    finally:
        cluster.drop_database(source)
        cluster.drop_database(warehouse)


@contextmanager
def starlift_in(home: Path) -> Iterator[Starlift]:
    """A Starlift of which nothing runs at the end, whatever has happened."""
    starlift = Starlift(home)
    try:
        yield starlift
    finally:
        left = starlift.alive
        Stack.remove(home)
        processes.stop(left, within=timedelta(seconds=10))


def wait_until(holds: Callable[[], bool]) -> None:
    """Fail if it is not true within HANG; messages of a killed service stay invisible for the visibility timeout, 60 s."""
    assert processes.wait_until(holds, within=HANG, every_s=0.1), f"did not come true in {HANG_S:g} s"


@pytest.fixture
def starlift(tmp_path: Path) -> Iterator[Starlift]:
    """A state directory in which nothing has ever run."""
    with starlift_in(tmp_path / "home") as fresh:
        yield fresh


@pytest.fixture(scope="package")
def databases(postgres_cluster: TestCluster) -> Iterator[Databases]:
    """The databases of the stack that the tests share."""
    with databases_of(postgres_cluster, orders=ORDERS) as both:
        assert not fetch_value(both.reader, "SELECT has_table_privilege('sales_order', 'INSERT, UPDATE, DELETE, TRUNCATE')")
        yield both


@pytest.fixture(scope="package")
def shared(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starlift]:
    """A Starlift that is up on the user's databases and has loaded them. A test that stops it starts it again.

    It ends with the last test of this directory: five processes that poll would slow down all later tests.
    """
    with starlift_in(tmp_path_factory.mktemp("shared") / "home") as running:
        running("up", "--detach", "--every", RUN_EVERY, expected=0, **databases.urls)
        running("ingest", "--wait")
        yield running
