"""What it costs to follow a source: changed rows, freshness under writes, an idle minute, and the queue runtime alone.

    python -m tests.bench.changes [--orders 100000] [--json FILE]

Each is measured on the services as `starlift up` starts them, after a first load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from contracts.messages import Trigger
from infra.local.databases import execute, fetch_value
from infra.local.machine import StackError
from infra.local.stack import Stack
from services.operator.errors import NotLoadedError
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.local.latency import Watch, read_seconds
from services.operator.local.totesys.start import start_writing
from services.operator.local.up import start_services
from services.operator.proof.verify import verify
from services.operator.system import OperatorSettings, System, open_system
from services.operator.terminal.harness import sigterm_as_interrupt
from shared.logs import configure_logs
from tests.bench.first_load import fill_source
from tests.bench.queue_runtime import measure_runtime
from tests.bench.report import machine
from tests.bench.starlift_load import LOAD_LIMIT
from tests.bench.usage import Usage, log_requests, metered

CHANGED = 1_000
ROUNDS = 5  # the median counts
RATES = (1, 10, 100, 500)  # transactions a second
WRITING = timedelta(seconds=20)
RUN_EVERY_S, LOOK_EVERY_S = 1.0, 0.1
IDLE = timedelta(minutes=1)
CHANGE = f"""
UPDATE sales_order SET units_sold = units_sold + 1, last_updated = clock_timestamp()::timestamp(3)
WHERE sales_order_id IN (SELECT sales_order_id FROM sales_order ORDER BY random() LIMIT {CHANGED})
"""
_LOADED = "SELECT max(loaded_at) FROM starlift.ledger WHERE run = $1"


async def measure(system: System, stack: Stack) -> dict[str, Any]:
    """Measure everything after a first load, and prove the star at the end."""
    await _load(system)
    changed = [await _changed(system, stack) for _ in range(ROUNDS)]
    figures: dict[str, Any] = {
        "changed_rows": {
            "rows": CHANGED,
            "seconds_until_visible": round(median(seconds for seconds, _ in changed), 2),
            "cpu_seconds": round(median(usage.cpu_total for _, usage in changed), 2),
            "cpu_seconds_by_group": changed[-1][1].cpu_seconds,
            "requests": changed[-1][1].requests,
        },
        "freshness": [await _freshness(system, stack, rate) for rate in RATES],
        "idle_minute": await _idle(system, stack),
        "queue_runtime": await measure_runtime(stack),
    }
    await _load(system)
    verdict = await verify(system)
    return figures | {"is_equal": verdict.is_equal}


async def _load(system: System) -> int:
    return (await wait_until_loaded(system, await request_run(system), limit=LOAD_LIMIT)).run


async def _changed(system: System, stack: Stack) -> tuple[float, Usage]:
    """Change rows and follow them: seconds from the request until the star shows them."""
    execute(str(stack.source_owner_url), CHANGE)
    began = datetime.now(UTC)
    with metered(stack, "operator") as usage:
        run = await _load(system)
    async with system.warehouse.connection() as warehouse:
        loaded_at: datetime = await warehouse.fetchval(_LOADED, run)
    return (loaded_at - began).total_seconds(), usage


async def _freshness(system: System, stack: Stack, rate: int) -> dict[str, Any]:
    """Seconds from a commit at the source until the star shows it, with a run a second, as `starlift up --every 1` makes."""
    with TemporaryDirectory() as directory:
        log = Path(directory) / "application.log"
        began, watch = datetime.now(UTC), Watch(system.contract, system.warehouse)
        await watch.look()
        writer = start_writing(str(stack.source_owner_url), per_second=rate, lasting=WRITING, seed=rate, log=log)
        try:
            with metered(stack, "operator") as usage:
                due = time.monotonic()
                while writer.exit_code() is None:
                    if time.monotonic() >= due:
                        due = time.monotonic() + RUN_EVERY_S
                        await request_run(system, trigger=Trigger.SCHEDULE)
                    await watch.look()
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            writer.stop(within=timedelta(seconds=10))
    await _load(system)
    await watch.look()
    seconds = await read_seconds(system.contract, system.database, watch, began)
    cut = quantiles(seconds, n=100)
    return {
        "transactions_per_second": rate,
        "versions": len(seconds),
        **{f"p{percent}_seconds": round(cut[percent - 1], 2) for percent in (50, 95, 99)},
        "cpu_seconds": round(usage.cpu_total, 2),
        "cpu_seconds_by_group": usage.cpu_seconds,
        "wall_seconds": WRITING.total_seconds(),
    }


async def _idle(system: System, stack: Stack) -> dict[str, Any]:
    """A minute in which nothing changes, with the one run that the shipped schedule makes."""
    with metered(stack, "operator") as usage:
        await request_run(system, trigger=Trigger.SCHEDULE)
        await asyncio.sleep(IDLE.total_seconds())
    return {
        "cpu_seconds": round(usage.cpu_total, 2),
        "cpu_seconds_by_group": usage.cpu_seconds,
        "requests": sum(usage.requests.values()),
        "requests_by_operation": usage.requests,
    }


def run(stack: Stack, home: Path, orders: int) -> dict[str, Any]:
    """Fill, load, measure, and return the document."""
    busy = os.getloadavg()[0]
    log_requests()
    configure_logs("bench", level="warning")  # a line per message would slow the consumer, and not the bare loop
    stack.start()
    asyncio.run(fill_source(str(stack.source_owner_url), orders))
    start_services(stack, home)
    os.environ.update(stack.state.environment_for("operator"))

    async def measured() -> dict[str, Any]:
        async with open_system(OperatorSettings()) as system:
            return await measure(system, stack)

    figures = asyncio.run(measured())
    version = str(fetch_value(stack.database_url("warehouse"), "SHOW server_version"))
    return {"machine": machine(version, load_average=busy), "orders": orders, **figures}


def main() -> None:
    """Measure in a stack of its own, and remove it afterwards."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.changes", description=__doc__.partition("\n")[0])
    parser.add_argument("--orders", type=int, default=100_000, help="sales orders in the source (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where to write the figures; they are printed as well")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="starlift-bench-") as directory, sigterm_as_interrupt():
        home = Path(directory) / "stack"
        try:
            with Stack(home) as stack:
                document = run(stack, home, arguments.orders)
        except KeyboardInterrupt:
            sys.exit("interrupted; the stack is removed")
        except (NotLoadedError, StackError) as error:
            sys.exit(f"the benchmark failed: {error}")
        finally:
            with suppress(OSError):
                Stack.remove(home)
    text = json.dumps(document, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
