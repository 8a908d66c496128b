"""One PostgreSQL server for all tests that need one, started when the first of them asks; each makes databases of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from infra.local.databases import LOADER, READER, SOURCE_OWNER, database_rights, set_up_database
from infra.local.ports import free_port
from infra.local.postgres import Cluster
from infra.local.sql import execute
from infra.local.unprivileged import remove_place


class TestCluster(Cluster):
    """A server whose databases come and go with the tests."""

    __test__ = False

    def __init__(self, name: str, state: Path) -> None:
        super().__init__(name, state)
        self._templates: set[str] = set()

    def create_database(self, *, owner: str = SOURCE_OWNER, reader: str | None = READER) -> str:
        """The name of a new, empty database; `url(name, role)` leads to it.

        A copy of one that was set up as ours are, which takes a sixth of the time: half of all tests begin here.
        """
        template, name = f"template_of_{owner}_{reader}", f"test_{uuid4().hex[:12]}"
        if template not in self._templates:
            set_up_database(self, template, owner=owner, reader=reader)
            self._templates.add(template)
        create = f'CREATE DATABASE "{name}" OWNER "{owner}" TEMPLATE "{template}" STRATEGY file_copy'
        execute(self.url(), create, *database_rights(name, reader))
        return name

    def create_warehouse(self) -> str:
        """The name of a new, empty database of the loader's."""
        return self.create_database(owner=LOADER, reader=None)

    def drop_database(self, name: str) -> None:
        """Drops it under whoever is still connected."""
        execute(self.url(), f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _running(name: str, state: Path) -> Iterator[TestCluster]:
    cluster = TestCluster(name, state)
    cluster.start(free_port())
    try:
        yield cluster
    finally:
        cluster.stop()
        remove_place(state)
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    for cluster in _running("postgres", tmp_path_factory.mktemp("postgres")):
        # A test's database does not outlive the test: half of the suite's time would go to waiting for the disk.
        execute(cluster.url(), "ALTER SYSTEM SET fsync = off")
        execute(cluster.url(), "SELECT pg_reload_conf()")
        yield cluster


@pytest.fixture(scope="session")
def second_postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """For tests that stop one server while the other goes on, and durable as ours are. Whoever stops it starts it again."""
    yield from _running("second", tmp_path_factory.mktemp("second_postgres"))


@pytest.fixture
def source_database(postgres_cluster: TestCluster) -> Iterator[str]:
    """The name of an empty database of totesys's, which starlift_reader may read."""
    name = postgres_cluster.create_database()
    yield name
    postgres_cluster.drop_database(name)


@pytest.fixture
def warehouse_database(postgres_cluster: TestCluster) -> Iterator[str]:
    """The name of an empty database of starlift_loader's."""
    name = postgres_cluster.create_warehouse()
    yield name
    postgres_cluster.drop_database(name)
