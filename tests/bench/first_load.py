"""The first load of a large source, beside the limit and a peer, in one run on one machine.

    python -m tests.bench.first_load --peer-python .venv-bench/bin/python [--orders 100000] [--json FILE]

Four methods to move the same rows from one PostgreSQL server to another: COPY piped into COPY, which no loader can beat
and which makes no star; dlt and sling, which copy the tables as they are; and Starlift, through SQS and S3, to the star with
its keys. All use the same two servers, which keep every commit through a crash.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infra.local.databases import LOADER, execute, fetch_value, set_up_database
from infra.local.machine import StackError
from infra.local.stack import Stack
from services.operator.errors import NotLoadedError
from services.operator.local.totesys.fill import connect, create, fill
from services.operator.local.up import start_services
from services.operator.system import OperatorSettings, open_system
from services.operator.terminal.harness import sigterm_as_interrupt
from tests.bench import copy_limit, peer_sling, starlift_load
from tests.bench.report import Measurement, machine, show, speed_ratio
from tests.bench.usage import Usage, log_requests, metered
from tests.fixtures.totesys import SOURCE_TABLES

SEED = 1
LIMIT_ROUNDS = 3  # the fastest is used, since it is a limit
TABLES = tuple(table.name for table in SOURCE_TABLES)
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
CLIENT = "client"  # the program that moves the rows; of dlt also the start of Python, which its seconds leave out


def run(stack: Stack, home: Path, *, orders: int, peer_python: Path | None) -> dict[str, Any]:
    """Measure everything, print the table, and return the document."""
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"this machine is busy (load average {busy:.1f}): other programs may slow one method more than another")
    log_requests()
    stack.start()
    require_durable(stack)
    print(f"filling the source with {orders:,} sales orders and their related rows ...")
    rows = asyncio.run(fill_source(str(stack.source_owner_url), orders))
    print("COPY | COPY ...")
    limit = min((_copy_limit(stack, rows, number) for number in range(LIMIT_ROUNDS)), key=lambda one: one.seconds)
    peers = _peers(stack, rows, peer_python) if peer_python else []
    print("Starlift ...")
    load, ours = _starlift(stack, home, rows)
    others = {"the limit": limit} | {peer.name: peer for peer in peers}
    ratios = {f"Starlift's speed / {name}'s": speed_ratio(ours, other) for name, other in others.items()}
    show(f"first load of {rows:,} source rows", (limit, *peers, ours), ratios)
    print(
        f"Starlift: read after {load.read_seconds:.2f} s, loaded after {load.loaded_seconds:.2f} s, foreign keys valid after"
        f" {load.whole_seconds:.2f} s; {load.object_bytes / 1e6:.1f} MB in S3, {sum(ours.usage.requests.values())} requests;"
        f" the star {'equals' if load.is_equal else 'DIFFERS FROM'} the source"
    )
    return {
        "machine": machine(str(fetch_value(stack.database_url("warehouse"), "SHOW server_version")), load_average=busy),
        "orders": orders,
        "seed": SEED,
        "limit": limit.as_json(),
        "peers": [peer.as_json() for peer in peers],
        "starlift": ours.as_json() | asdict(load),
        "ratios": ratios,
    }


def require_durable(stack: Stack) -> None:
    """Raises: StackError if a server could lose a commit in a crash: every method would then be faster than it is."""
    for name in ("source", "warehouse"):
        for setting in DURABLE:
            if (found := fetch_value(stack.database_url(name), f"SHOW {setting}")) != "on":
                raise StackError(f"{setting} of the {name} server is {found}; set it to on")


async def fill_source(owner_url: str, orders: int) -> int:
    """Create and fill the source, and return its number of rows."""
    connection = await connect(owner_url)
    await create(connection)
    rows = await fill(connection, orders=orders, seed=SEED)
    await connection.close()
    return sum(rows.values())


def _empty_target(stack: Stack, name: str) -> str:
    """The URL of a new database beside the warehouse, after a checkpoint: none pays for what another has written."""
    cluster = stack.clusters["warehouse"]
    set_up_database(cluster, name, owner=LOADER)
    execute(cluster.url(), "CHECKPOINT")
    return cluster.url(name, LOADER)


def _copy_limit(stack: Stack, rows: int, number: int) -> Measurement:
    target = _empty_target(stack, f"limit_{number}")
    with metered(stack, CLIENT) as usage:
        seconds = asyncio.run(copy_limit.copy_tables(stack.database_url("source"), target, TABLES))
    return Measurement("COPY | COPY", "the tables, primary keys", rows, seconds, usage)


def _peers(stack: Stack, rows: int, python: Path) -> list[Measurement]:
    """dlt, and sling where its wheel can be installed."""
    print("dlt, sling ...")
    source, script = stack.database_url("source"), Path(__file__).with_name("peer_dlt.py")
    urls = ("--source", source, "--target", _empty_target(stack, "dlt"))
    with metered(stack, CLIENT) as usage:
        answer = json.loads(subprocess.run([python, script, *urls, *TABLES], stdout=subprocess.PIPE, check=True).stdout)
    usage.peak_rss_bytes = {"dlt": answer["peak_rss_bytes"]}
    measured = [Measurement(f"dlt {answer['version']}", "the tables, no keys", rows, answer["seconds"], usage)]
    if (found := peer_sling.find_program(python)) is None:
        print("sling is left out: it has no wheel for this machine")
        return measured
    target = _empty_target(stack, "sling")
    with metered(stack, CLIENT) as usage:
        seconds, peak = peer_sling.copy_tables(found[0], source, target, TABLES)
    usage.peak_rss_bytes = {"sling": peak}
    copied = sum(int(str(fetch_value(target, f'SELECT count(*) FROM peer."{table}"'))) for table in TABLES)
    if copied != rows:
        raise StackError(f"sling copied {copied:,} of {rows:,} rows")
    return [*measured, Measurement(f"sling {found[1]}", "the tables, no keys", rows, seconds, usage)]


def _starlift(stack: Stack, home: Path, rows: int) -> tuple[starlift_load.FirstLoad, Measurement]:
    start_services(stack, home)
    execute(stack.clusters["warehouse"].url(), "CHECKPOINT")
    os.environ.update(stack.state.environment_for("operator"))

    async def load() -> tuple[starlift_load.FirstLoad, Usage]:
        async with open_system(OperatorSettings()) as system:
            return await starlift_load.first_load(system, stack)

    done, usage = asyncio.run(load())
    return done, Measurement("Starlift", "the star, keys and foreign keys valid", rows, done.whole_seconds, usage)


def main() -> None:
    """Measure in a stack of its own, and remove it afterwards."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.first_load", description=__doc__.partition("\n")[0])
    parser.add_argument("--peer-python", type=Path, help="the Python of the environment that has the peers; none: without them")
    parser.add_argument("--orders", type=int, default=100_000, help="sales orders in the source (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where to write the figures; without it they are printed")
    arguments = parser.parse_args()
    if arguments.peer_python and not arguments.peer_python.exists():
        parser.error(f"there is no {arguments.peer_python}; run `make .venv-bench/.installed`")
    if arguments.orders < 1:
        parser.error(f"--orders {arguments.orders} leaves nothing to load; give at least 1")
    with TemporaryDirectory(prefix="starlift-bench-") as directory, sigterm_as_interrupt():
        home = Path(directory) / "stack"
        try:
            with Stack(home) as stack:
                document = run(stack, home, orders=arguments.orders, peer_python=arguments.peer_python)
        except KeyboardInterrupt:
            sys.exit("interrupted; the stack is removed")
        except (NotLoadedError, StackError, subprocess.CalledProcessError) as error:
            sys.exit(f"the benchmark failed: {error}")
        finally:
            Stack.remove(home)
    text = json.dumps(document, indent=2)
    if arguments.json:
        arguments.json.write_text(f"{text}\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
