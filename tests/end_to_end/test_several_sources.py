"""One star of three sources, on a real stack: one is down, one is in its first load, and the third does not notice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import asyncpg
import pytest

from infra.local.databases import LOADER, READER, SOURCE_OWNER, execute, fetch_value
from infra.local.machine import free_port
from tests.end_to_end.conftest import Starlift, wait_until
from tests.fixtures.postgres_cluster import TestCluster

BUDGETS = 30_000
CHANGES = 3  # of the third source that have to arrive while the others are as they are
CONTRACT = """
name: several
star:
  dim_item: {dimension: item, columns: {item_id: , item_name: }}
  dim_region: {dimension: region, columns: {region_id: , region_name: }}
  fact_budget:
    fact: budget
    columns: {budget_id: , item_id: {references: dim_item}, region_id: {references: dim_region}, amount: }
sources:
  shop:
    tables:
      item: {key: item_id, columns: {item_id: integer not null, item_name: text not null}}
  plans:
    tables:
      budget:
        key: budget_id
        columns: {budget_id: integer not null, item_id: integer, region_id: integer, amount: "numeric(12,2) not null"}
  regions:
    tables:
      region: {key: region_id, columns: {region_id: integer not null, region_name: text not null}}
"""
ROWS = {
    "shop": "CREATE TABLE item (item_id int PRIMARY KEY, item_name text NOT NULL); INSERT INTO item VALUES (1, 'before')",
    "plans": "CREATE TABLE budget (budget_id int PRIMARY KEY, item_id int, region_id int, amount numeric(12,2) NOT NULL); "
    f"INSERT INTO budget SELECT n, 1 + n % 2, 1 + n % 3, n FROM generate_series(1, {BUDGETS}) AS n",
    "regions": "CREATE TABLE region (region_id int PRIMARY KEY, region_name text NOT NULL); "
    "INSERT INTO region VALUES (1, 'North')",
}


@pytest.fixture
def urls(postgres_cluster: TestCluster, second_postgres_cluster: TestCluster) -> Iterator[dict[str, str]]:
    """By name: that of the application of each source, and that of the warehouse. The regions are on a server of their own."""
    clusters = {"shop": postgres_cluster, "plans": postgres_cluster, "regions": second_postgres_cluster}
    with ExitStack() as stack:
        found = {}
        for source, cluster in clusters.items():
            name = cluster.create_database()
            stack.callback(cluster.drop_database, name)
            found[source] = cluster.url(name, SOURCE_OWNER)
            execute(found[source], *ROWS[source].split("; "))
            found[f"{source} reader"] = cluster.url(name, READER)
        warehouse = postgres_cluster.create_warehouse()
        stack.callback(postgres_cluster.drop_database, warehouse)
        found["warehouse"] = postgres_cluster.url(warehouse, LOADER)
        yield found


@contextmanager
def a_first_load_that_waits(url: str) -> Iterator[None]:
    """Reading a row of the budgets waits for an advisory lock, so that their first load goes on however fast the machine is."""
    execute(
        url,
        "CREATE FUNCTION waited() RETURNS boolean LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_advisory_lock_shared(1); RETURN pg_advisory_unlock_shared(1); END $$",
        "CREATE POLICY read_slowly ON budget USING (waited())",
        "ALTER TABLE budget ENABLE ROW LEVEL SECURITY",
    )
    locks = "FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"

    def hold() -> None:
        with suppress(asyncpg.QueryCanceledError):
            execute(url, "SELECT pg_advisory_lock(1), pg_sleep(3600)")

    holder = Thread(target=hold)
    holder.start()
    try:
        wait_until(lambda: fetch_value(url, f"SELECT count(*) {locks}"))
        yield
    finally:
        fetch_value(url, f"SELECT count(pg_cancel_backend(pid)) {locks}")
        holder.join()


def documents(text: str) -> list[Any]:
    """The JSON documents of a command that went over several sources."""
    decoder, found = json.JSONDecoder(), []
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def test_a_source_that_is_down_and_one_in_its_first_load_hold_up_no_third(
    starlift: Starlift, urls: dict[str, str], second_postgres_cluster: TestCluster, tmp_path: Path
) -> None:
    contract = tmp_path / "several.yaml"
    contract.write_text(CONTRACT)
    variables = {
        "STARLIFT_SOURCE_URL": urls["shop reader"],
        "STARLIFT_SOURCE_URL_PLANS": urls["plans reader"],
        "STARLIFT_SOURCE_URL_REGIONS": urls["regions reader"],
        "STARLIFT_WAREHOUSE_URL": urls["warehouse"],
    }
    up = ("up", "--detach", "--contract", str(contract), "--every", "1", "--prove-every", "3600")
    with a_first_load_that_waits(urls["plans"]):
        starlift(*up, expected=0, **variables)
        second_postgres_cluster.stop()
        try:
            wait_until(lambda: "regions: waiting: " in starlift.log("up"))
            waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_until(lambda: fetch_value(urls["plans"], waits))
            for number in range(CHANGES):
                execute(urls["shop"], f"UPDATE item SET item_name = 'change {number}'")
                arrived = f"SELECT item_name = 'change {number}' FROM dim_item WHERE item_id = 1"
                wait_until(lambda arrived=arrived: fetch_value(urls["warehouse"], arrived))  # type: ignore[misc]
            assert fetch_value(urls["warehouse"], "SELECT count(*) FROM fact_budget") == 0
            status = json.loads(starlift("status", "--source", "shop", "--timeout", "30", "--json", expected=None).out)
            assert status["missing_batches"] == []
        finally:
            second_postgres_cluster.start(second_postgres_cluster.port or free_port())
    execute(urls["regions"], "INSERT INTO region VALUES (2, 'South')")
    starlift("ingest", "--wait")
    verdicts = documents(starlift("verify", "--json").out)
    assert [(verdict["equal"], verdict["in_flight"]) for verdict in verdicts] == [(True, 0)] * 3
    assert fetch_value(urls["warehouse"], "SELECT count(*) FROM fact_budget") == BUDGETS
    inferred = "SELECT array_agg(region_id ORDER BY 1) FROM dim_region WHERE _run = 0"
    assert fetch_value(urls["warehouse"], inferred) == [3]
