"""How a full read is shared: the same source read by one ingestion task alone, and by 1, 2 and 4 that share its large tables.

    python -m tests.bench.shared_read [--orders 200000] [--batch-rows 10000]

Only ingestion runs, so the seconds are those until the last batch is announced. Where tasks have fewer cores than they could
use, CPU-seconds say what sharing costs, and seconds say nothing about what it gains.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contracts.messages import Extract, Role
from contracts.state import Manifest
from infra.local import processes
from infra.local.bootstrap import client
from infra.local.processes import Child
from infra.local.stack import Stack
from infra.local.state import service_environment
from services.operator.ingest import request_run
from services.operator.system import OperatorSettings, System, open_system
from tests.bench.first_load import fill_source
from tests.bench.usage import log_requests, metered, peak_rss_bytes

LIMIT_S = 900.0
STOP = timedelta(seconds=30)


def start_task(stack: Stack, home: Path, number: int, batch_rows: int, *, shares: bool) -> Child:
    """Start an ingestion process and let the stack stop it."""
    environment = service_environment("ingestion", stack.state, os.environ) | {"STARLIFT_BATCH_ROWS": str(batch_rows)}
    if not shares:
        environment = {name: value for name, value in environment.items() if "_SHARED_" not in name}
    log = home / f"ingestion-{number}.log"
    child = processes.start(processes.python("services.ingestion"), log=log, environment=environment, directory=home)
    stack.adopt(f"ingestion-{number}", child)
    return child


async def read(stack: Stack, system: System) -> tuple[Manifest, float]:
    """Make a first run, whatever was read before, and return its manifest and the seconds it took."""
    bucket, endpoint = system.settings.landing_bucket, stack.resources.endpoint_url
    s3 = client("s3", endpoint, system.settings.region)
    s3.delete_object(Bucket=bucket, Key=system.store.keys.state)
    began = time.monotonic()
    request = await request_run(system)
    while time.monotonic() - began < LIMIT_S:
        for manifest in await system.store.manifests_after(request.after):
            if manifest.requested_by == request.command.id:
                return manifest, time.monotonic() - began
        await asyncio.sleep(0.2)
    raise TimeoutError(f"not read after {LIMIT_S:g} s")


def extracts(manifest: Manifest) -> list[Extract]:
    """What a run wrote."""
    return [extract for batch in manifest.batches for extract in batch.data.extracts]


def rows_read(manifest: Manifest) -> dict[str, int]:
    """How many rows of each table a run read."""
    rows = Counter[str]()
    for extract in (one for one in extracts(manifest) if one.role is Role.BASE):
        rows[extract.table] += extract.object.row_count
    return dict(rows)


async def measure(stack: Stack, home: Path, batch_rows: int) -> list[dict[str, Any]]:
    """One document for each number of tasks; 0 is one task that does not share."""
    found: list[dict[str, Any]] = []
    expected: dict[str, int] = {}
    async with open_system(OperatorSettings()) as system:
        for number in (0, 1, 2, 4):
            tasks = [start_task(stack, home, one, batch_rows, shares=number > 0) for one in range(max(1, number))]
            await asyncio.sleep(8)  # until they poll
            with metered(stack, "operator") as usage:
                manifest, seconds = await read(stack, system)
            expected = expected or rows_read(manifest)
            cpu: dict[str, float] = defaultdict(float)
            for name, used in usage.cpu_seconds.items():
                cpu["ingestion" if name.startswith("ingestion") else name] += used
            found.append(
                {
                    "tasks": number,
                    "seconds": round(seconds, 2),
                    "batches": len(manifest.batches),
                    "object_bytes": sum(ref.byte_count for ref in {one.object for one in extracts(manifest)}),
                    "cpu_seconds": {name: round(used, 2) for name, used in cpu.items()},
                    "requests": sum(usage.requests.values()),
                    "peak_mib": [round((peak_rss_bytes(task.id.pid) or 0) / 2**20) for task in tasks],
                    "is_equal": rows_read(manifest) == expected,
                }
            )
            print(json.dumps(found[-1]), flush=True)
            for task in tasks:
                task.stop(within=STOP)
    return found


def main() -> None:
    """Measure, and print a line for each number of tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=200_000)
    parser.add_argument("--batch-rows", type=int, default=10_000)
    options = parser.parse_args()
    log_requests()
    with TemporaryDirectory(prefix="starlift-bench-") as directory, Stack(Path(directory) / "stack") as stack:
        stack.start()
        rows = asyncio.run(fill_source(str(stack.source_owner_url), options.orders))
        print(f"{rows:,} rows", flush=True)
        os.environ.update(stack.state.environment_for("operator"))
        asyncio.run(measure(stack, Path(directory), options.batch_rows))


if __name__ == "__main__":
    main()
