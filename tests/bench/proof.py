"""How fast the proof is, beside counting the same rows, in one run on one machine.

    python -m tests.bench.proof [--orders 100000] [--json FILE]

`starlift verify`, as its user starts it, against `count(*)` of every table that it compares, on both servers: no comparison can
be faster than that. Once with the warehouse equal, and once with a row in a thousand wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contracts.contract import Contract
from contracts.tables import Calendar
from infra.local.databases import execute, fetch_value
from infra.local.stack import Stack
from services.operator.local.up import start_services
from services.operator.proof.actual import current_relation
from services.operator.system import OperatorSettings, open_system
from services.operator.terminal.harness import sigterm_as_interrupt
from tests.bench.first_load import fill_source
from tests.bench.report import Measurement, machine, show, speed_ratio
from tests.bench.starlift_load import first_load
from tests.bench.usage import Usage
from tests.fixtures.totesys import CONTRACT

ROUNDS = 3  # the fastest is used
EQUAL, DIFFERENT = 0, 3
CORRUPT = "UPDATE fact_sales_order SET units_sold = units_sold + 1 WHERE sales_order_id % 1000 = 0"
_PEAK = "import resource, subprocess, sys; c = subprocess.run(sys.argv[1:]); "
_PEAK += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=sys.stderr); raise SystemExit(c.returncode)"


def run(stack: Stack, home: Path, orders: int) -> dict[str, Any]:
    """Measure everything, print the table, and return the document."""
    busy = os.getloadavg()[0]
    stack.start()
    print(f"filling the source with {orders:,} sales orders and their related rows ...")
    asyncio.run(fill_source(str(stack.source_owner_url), orders))
    print("loading ...")
    start_services(stack, home)
    os.environ.update(stack.state.environment_for("operator"))
    asyncio.run(_load(stack))
    stack.stop_services()  # they would share the processors
    print("counting and proving ...")
    source, warehouse = stack.database_url("source"), stack.database_url("warehouse")
    counts = [
        _best(partial(_count, "source", source, _sources(CONTRACT))),
        _best(partial(_count, "warehouse", warehouse, _stars(CONTRACT))),
    ]
    equal = _best(partial(_verify, stack, EQUAL))
    execute(stack.clusters["warehouse"].url("warehouse"), CORRUPT)
    different = _best(partial(_verify, stack, DIFFERENT))
    limit = Measurement("count(*)", "both servers, one after the other", equal.rows, sum(one.seconds for one in counts))
    proofs = {"an equal warehouse": equal, "one with errors": different}
    ratios = {f"speed of proving {name} / counting's": speed_ratio(proof, limit) for name, proof in proofs.items()}
    show(f"proof of {equal.rows:,} star rows", (limit, equal, different), ratios)
    return {
        "machine": machine(str(fetch_value(warehouse, "SHOW server_version")), load_average=busy),
        "orders": orders,
        "limit": limit.as_json(),
        "equal": equal.as_json(),
        "different": different.as_json(),
        "ratios": ratios,
    }


async def _load(stack: Stack) -> None:
    async with open_system(OperatorSettings()) as system:
        await first_load(system, stack)


def _sources(contract: Contract) -> list[str]:
    return [f'public."{table.source}"' for table in contract.warehouse_tables if not isinstance(table, Calendar)]


def _stars(contract: Contract) -> list[str]:
    return [current_relation(contract, table) for table in contract.warehouse_tables if not isinstance(table, Calendar)]


def _count(name: str, url: str, relations: list[str]) -> Measurement:
    began = time.monotonic()
    rows = sum(int(str(fetch_value(url, f"SELECT count(*) FROM {relation}"))) for relation in relations)
    return Measurement(f"count(*), {name}", "", rows, time.monotonic() - began)


def _verify(stack: Stack, expected: int) -> Measurement:
    """The whole command, the start of Python included."""
    command = [sys.executable, "-c", _PEAK, sys.executable, "-m", "services.operator", "verify", "--settle", "0", "--json"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode != expected:
        sys.exit(f"verify ended with {done.returncode} instead of {expected}: {done.stderr}")
    rows = sum(table["expected"] for table in json.loads(done.stdout)["tables"].values())
    makes = "equal" if expected == EQUAL else "one order in a thousand is wrong"
    usage = Usage(peak_rss_bytes={"operator": int(done.stderr.split()[-1])})
    return Measurement("starlift verify", makes, rows, seconds, usage)


def _best(measure: Callable[[], Measurement]) -> Measurement:
    return min((measure() for _ in range(ROUNDS)), key=lambda one: one.seconds)


def main() -> None:
    """Measure in a stack of its own, and remove it afterwards."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.proof", description=__doc__.partition("\n")[0])
    parser.add_argument("--orders", type=int, default=100_000, help="sales orders in the source (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where to write the figures; without it they are printed")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="starlift-bench-") as directory, sigterm_as_interrupt():
        home = Path(directory) / "stack"
        try:
            with Stack(home) as stack:
                document = run(stack, home, arguments.orders)
        except KeyboardInterrupt:
            sys.exit("interrupted; the stack is removed")
        finally:
            Stack.remove(home)
    text = json.dumps(document, indent=2)
    if arguments.json:
        arguments.json.write_text(f"{text}\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
