"""What it costs to find deleted rows: hashes and look-ups beside lists of all keys, in one run on one machine.

    python -m tests.bench.deletes [--rows 1000000] [--json FILE]

Both ways compare the same source with the same star, of one table whose key is a whole number: with 0, 10 and 10,000 rows
deleted, and with and without one row in a hundred changed since the last run. The lists are those of decision 0006, rebuilt
here: every key as a line of JSON, and an anti-join in the warehouse while the star's lock is held.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from contracts.column_types import BIGINT, INTEGER
from contracts.contract import Contract
from contracts.origins import FromSource
from contracts.tables import Column, Dimension, SourceColumn, SourceTable
from contracts.warehouse import STAR_LOCK
from infra.local.databases import LOADER, READER, SOURCE_OWNER, execute, fetch_value
from infra.local.machine import free_port, remove_place
from services.operator.terminal.harness import sigterm_as_interrupt
from tests.bench.report import machine
from tests.fixtures.beginnings import Beginning
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster

ITEM = SourceTable("item", ("id",), (SourceColumn("id", BIGINT), SourceColumn("price", INTEGER)))
DIM_ITEM = Dimension(
    "dim_item", ("id",), (Column("id", BIGINT, FromSource("id")), Column("price", INTEGER, FromSource("price"))), "item"
)
CONTRACT = Contract("bench", "public", "public", (ITEM,), (DIM_ITEM,))
DELETED = (0, 10, 10_000)
SAMPLE_S = 0.005  # how often the lock is sampled
KEYS_AT_ONCE = 400_000
HELD = """
SELECT EXISTS (
    SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted AND d.datname = current_database()
    AND (l.classid::bigint << 32) + l.objid::bigint = $1
)
"""


@dataclass
class Cost:
    """One comparison, from the first query at the source until the deleted rows are marked."""

    way: str
    deleted: int
    changed: int
    found: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0  # sent for the comparison, without the changed rows
    keys_asked_about: int = 0
    lock_seconds: float = 0.0  # during which no load can run


class Lock:
    """Measures how long the star's lock is held exclusively."""

    def __init__(self, url: str) -> None:
        self.seconds = 0.0
        self._url = url

    async def _watch(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            last = perf_counter()
            while True:
                is_held = await connection.fetchval(HELD, STAR_LOCK)
                now = perf_counter()
                self.seconds += (now - last) if is_held else 0
                last = now
                await asyncio.sleep(SAMPLE_S)
        finally:
            await connection.close()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watch while the body runs."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()


async def by_hashes(pipeline: Pipeline, source_url: str, star_url: str, cost: Cost) -> Cost:
    """Measure Starlift's way: a run that compares, a comparison, questions, answers."""
    lock = Lock(star_url)
    async with lock.watched():
        began = perf_counter()
        events = await pipeline.ingest(compare_keys=True)
        questions = await pipeline.load(*[await pipeline.remodel(event) for event in events])
        await pipeline.settle(questions)
        cost.seconds = perf_counter() - began
    hashes = sum(event.data.hashes.byte_count for event in events if event.data.hashes)
    cost.megabytes = (hashes + sum(len(question.model_dump_json()) for question in questions)) / 1e6
    cost.keys_asked_about = sum(len(rows.keys) for question in questions for rows in question.data.rows)
    cost.lock_seconds = lock.seconds
    cost.found = await _count(star_url, "SELECT count(*) FROM dim_item WHERE _deleted_at IS NOT NULL")
    return cost


async def by_lists(pipeline: Pipeline, source_url: str, star_url: str, cost: Cost) -> Cost:
    """Measure the way of decision 0006, without its marks: the keys that a list lacks."""
    await pipeline.run()  # the changed rows, which both ways load
    lock = Lock(star_url)
    async with lock.watched():
        began = perf_counter()
        source, star = await asyncpg.connect(source_url), await asyncpg.connect(star_url)
        try:
            lines = bytearray()

            async def take(piece: bytes) -> None:
                lines.extend(piece)

            await source.copy_from_query(
                "SELECT json_build_array(id) FROM item", output=take, format="csv", quote="\x01", delimiter="\x02"
            )
            body = await asyncio.to_thread(gzip.compress, bytes(lines), 1)
            cost.megabytes = len(body) / 1e6
            async with star.transaction():
                await star.execute("SELECT pg_advisory_xact_lock($1)", STAR_LOCK)
                await star.execute("CREATE TEMPORARY TABLE keys (id bigint) ON COMMIT DROP")
                keys = [key for (key,) in map(json.loads, gzip.decompress(body).splitlines())]
                for start in range(0, len(keys), KEYS_AT_ONCE):
                    await star.execute("INSERT INTO keys SELECT unnest($1::bigint[])", keys[start : start + KEYS_AT_ONCE])
                gone = "SELECT count(*) FROM dim_item AS t WHERE NOT EXISTS (SELECT FROM keys AS k WHERE k.id = t.id)"
                cost.found = int(await star.fetchval(gone))
        finally:
            await source.close()
            await star.close()
        cost.seconds = perf_counter() - began
    cost.lock_seconds = lock.seconds
    return cost


async def _count(url: str, query: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def load(cluster: TestCluster, rows: int) -> Beginning:
    """A source of so many rows, and a star that has them all: loaded once, and copied for each case."""
    loaded = Beginning(cluster.create_database(), cluster.create_warehouse())
    owner = cluster.url(loaded.source, SOURCE_OWNER)
    execute(owner, "CREATE TABLE item (id bigint PRIMARY KEY, price integer NOT NULL)")
    execute(owner, f"INSERT INTO item SELECT i * 7, 1 FROM generate_series(1, {rows}) AS i")
    execute(owner, "ANALYZE item")
    urls = cluster.url(loaded.source, READER), cluster.url(loaded.warehouse, LOADER)
    async with open_pipeline(*urls, contract=CONTRACT, objects=loaded.objects) as pipeline:
        await pipeline.run()
    execute(urls[1], "VACUUM ANALYZE dim_item")
    return loaded


async def measure(cluster: TestCluster, rows: int) -> list[Cost]:
    """Every case both ways, each on a source and a star of its own."""
    loaded, costs = await load(cluster, rows), []
    for changed in (0, rows // 100):
        for deleted in DELETED:
            for way, compare in (("hashes", by_hashes), ("lists", by_lists)):
                source = cluster.create_database(template=loaded.source)
                star = cluster.create_warehouse(template=loaded.warehouse)
                owner, urls = cluster.url(source, SOURCE_OWNER), (cluster.url(source, READER), cluster.url(star, LOADER))
                oid = int(fetch_value(owner, "SELECT oid FROM pg_database WHERE datname = current_database()"))
                try:
                    async with open_pipeline(*urls, contract=CONTRACT, objects=loaded.objects_for(oid)) as pipeline:
                        spread = f"SELECT id FROM item ORDER BY hashint8(id) LIMIT {deleted}"
                        execute(owner, f"DELETE FROM item WHERE id IN ({spread})")
                        execute(owner, f"UPDATE item SET price = 2 WHERE id IN (SELECT id FROM item LIMIT {changed})")
                        costs.append(await compare(pipeline, urls[0], urls[1], Cost(way, deleted, changed)))
                    print(json.dumps(asdict(costs[-1])), flush=True)
                finally:
                    cluster.drop_database(source)
                    cluster.drop_database(star)
    return costs


def show(rows: int, costs: list[Cost]) -> None:
    """Print the figures for a person."""
    table = Table(
        "deleted", "changed", "way", "seconds", "MB", "keys asked about", "lock held, s", "found", title=f"{rows:,} keys"
    )
    for cost in costs:
        table.add_row(
            f"{cost.deleted:,}",
            f"{cost.changed:,}",
            cost.way,
            f"{cost.seconds:.2f}",
            f"{cost.megabytes:.2f}",
            f"{cost.keys_asked_about:,}",
            f"{cost.lock_seconds:.3f}",
            f"{cost.found:,}",
        )
    Console(highlight=False).print(table)


def main() -> None:
    """Measure in a server of its own, which is gone afterwards."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.deletes", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where to write the figures; without it they are printed")
    arguments = parser.parse_args()
    busy = os.getloadavg()[0]
    with TemporaryDirectory(prefix="starlift-bench-") as directory, sigterm_as_interrupt():
        state = Path(directory) / "cluster"
        cluster = TestCluster("bench", state)
        cluster.start(free_port())
        try:
            costs = asyncio.run(measure(cluster, arguments.rows))
        except KeyboardInterrupt:
            sys.exit("interrupted; everything is taken down")
        finally:
            cluster.stop()
            remove_place(state)
    document: dict[str, Any] = {
        "machine": machine("embedded", load_average=busy),
        "rows": arguments.rows,
        "costs": [asdict(cost) for cost in costs],
    }
    show(arguments.rows, costs)
    text = json.dumps(document, indent=2)
    if arguments.json:
        arguments.json.write_text(f"{text}\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
