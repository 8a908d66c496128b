"""Services of two builds side by side on the queues, buckets and databases of one local stack, as in a rolling deployment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.local import processes
from infra.local.processes import Child
from infra.local.stack import Stack
from infra.local.state import service_environment
from shared.contract_file import contract_text
from tests.end_to_end.conftest import Databases, Starlift, databases_of, wait_until
from tests.fixtures.command import ROOT
from tests.fixtures.limits import HANG, HANG_S
from tests.fixtures.postgres_cluster import TestCluster

SERVICES = ("ingestion", "remodelling", "loading")
# What an older build can't read yet it puts off for a minute; here for two seconds, so that the test does not wait.
IMPATIENT = """
import runpy, sys
from datetime import timedelta
import shared.stored_rows
shared.stored_rows.NEWER_COLUMNS_DELAY = timedelta(seconds=2)
sys.argv = ["service"]
runpy.run_module("services.{service}", run_name="__main__")
"""


@dataclass
class Builds:
    """The services of both builds, started and stopped separately."""

    stack: Stack
    home: Path
    running: dict[str, Child] = field(default_factory=dict)

    def start(self, build: str, service: str, **settings: str) -> None:
        environment = service_environment(service, self.stack.state, os.environ) | settings
        command = [sys.executable, "-c", IMPATIENT.format(service=service)]
        log = self.home / f"{build}-{service}.log"
        self.running[f"{build}-{service}"] = processes.start(command, log=log, environment=environment, directory=ROOT)

    def newer(self) -> dict[str, str]:
        """The settings of the newer build."""
        return {"STARLIFT_CONTRACT": self.newer_contract()}

    def newer_contract(self) -> str:
        """The path of the newer build's contract, in which staff keeps the number of its department."""
        path = self.home / "newer.yaml"
        path.write_text(
            contract_text("totesys").replace("      email_address:\n", "      email_address:\n      department_id:\n", 1)
        )
        return str(path)

    def stop(self, *names: str) -> list[int]:
        """Drain services, as a deployment does, and return their exit codes."""
        children = [self.running.pop(name) for name in names]
        processes.stop((child.id for child in children), within=HANG)
        return [child.popen.wait() for child in children]

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()


@pytest.fixture
def databases(postgres_cluster: TestCluster) -> Iterator[Databases]:
    with databases_of(postgres_cluster, orders=30) as both:
        yield both


@pytest.fixture
def builds(starlift: Starlift, databases: Databases) -> Iterator[Builds]:
    with Stack(starlift.home) as stack:
        stack.start(source_url=databases.reader, warehouse_url=databases.warehouse)
        both = Builds(stack, starlift.home)
        try:
            yield both
        finally:
            both.stop(*both.running)


def columns(databases: Databases) -> list[str]:
    query = "SELECT column_name FROM information_schema.columns WHERE table_name = 'dim_staff'"
    return [row["column_name"] for row in databases.read(query)]


def migrate(builds: Builds) -> None:
    """Migrate the warehouse, as .github/release.sh does, before a loader of the newer build starts."""
    environment = service_environment("loading", builds.stack.state, os.environ) | builds.newer()
    log = builds.home / "migration.log"
    command = [sys.executable, "-m", "services.loading.migrate"]
    assert processes.start(command, log=log, environment=environment, directory=ROOT).popen.wait(timeout=HANG_S) == 0


def test_services_are_replaced_one_by_one_and_nothing_is_lost(builds: Builds, starlift: Starlift, databases: Databases) -> None:
    for service in SERVICES:
        builds.start("older", service)
    starlift("ingest", "--wait")
    assert starlift("verify", "--json").json["equal"]

    # A newer remodeller sends columns that the loader, still the older one, does not know.
    builds.start("newer", "remodelling", **builds.newer())
    assert builds.stop("older-remodelling") == [0]
    databases.write("UPDATE staff SET first_name = 'Ada', last_updated = now() WHERE staff_id = 1")
    starlift("ingest", "--full")
    wait_until(lambda: "message_deferred" in builds.log("older-loading"))

    # The loader's turn: the warehouse first. The older one runs beside it until it is drained.
    migrate(builds)
    assert "department_id" in columns(databases)
    builds.start("newer", "loading", **builds.newer())
    wait_until(lambda: "batch_loaded" in builds.log("newer-loading"))
    assert builds.stop("older-loading") == [0]

    # Ingestion last, which is as well the other way round: both builds' requests and extracts are known to all.
    builds.start("newer", "ingestion", **builds.newer())
    starlift("ingest", "--wait")
    assert builds.stop("older-ingestion") == [0]
    starlift("ingest", "--wait", STARLIFT_CONTRACT=builds.newer_contract())
    assert starlift("verify", "--json", STARLIFT_CONTRACT=builds.newer_contract()).json["equal"]
    assert databases.read("SELECT count(*) FROM dim_staff WHERE department_id IS NULL")[0]["count"] == 0
    assert set(
        starlift("status", "--timeout", "600", "--json", expected=5, STARLIFT_CONTRACT=builds.newer_contract())
        .json["dead_letters"]
        .values()
    ) == {0}
