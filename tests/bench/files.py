"""What it costs to read a file of the drop zone: records in a CPU-second, and the peak of memory, as JSON.

    python -m tests.bench.files [--mib 1000] [--columns 6]

The file is a CSV of six columns, and maybe of empty ones that the contract does not know. It is read, typed, searched for
repeated keys, and kept on disk, as a run does before it announces anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from contracts.column_types import BIGINT, BOOLEAN, DATE, TEXT, TIMESTAMP, numeric
from contracts.datasets import Contents, Format, RecordForm
from contracts.state import DatasetState
from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord, Record
from services.ingestion.records import read_records
from services.ingestion.spool import spooled
from shared.codecs.codec import MIB
from tests.bench.usage import peak_rss_bytes
from tests.fixtures.data_sets import data_set

COLUMNS = {"id": BIGINT, "month": DATE, "amount": numeric(12, 2), "note": TEXT, "at": TIMESTAMP, "good": BOOLEAN}
TABLE = data_set(RecordForm(Format.CSV), COLUMNS)


@dataclass
class LocalFile:
    """A file on this machine, as the drop zone delivers one."""

    path: Path
    table: SourceTable = TABLE
    contents: Contents = Contents.SNAPSHOT
    name: str = "dropzone/budget/large.csv"

    async def records(self) -> AsyncGenerator[list[Record | BadRecord], None]:
        """See Delivery."""
        with self.path.open("rb") as file:
            async for page in read_records(file, self.table):
                yield page

    def state(self) -> DatasetState:
        """See Delivery."""
        return DatasetState()


def write(path: Path, size: int, columns: int = len(COLUMNS)) -> None:
    """Write a CSV of about so many bytes, and so many columns."""
    others = columns - len(COLUMNS)
    chosen = random.Random(1)  # noqa: S311 (not a secret)
    with path.open("w") as file:
        file.write(",".join([*COLUMNS, *(f"more_{number}" for number in range(others))]) + "\n")
        for number in range(size // (70 + others)):
            day, cents = f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}", chosen.randrange(10**8)
            at = f"{day}T09:{number % 60:02}:30.{cents % 10**6:06}"
            good = "true" if number % 2 else ""
            file.write(f"{number},{day},{cents // 100}.{cents % 100:02},note {cents % 9973},{at},{good}{',' * others}\n")


def measure(mib: int, columns: int) -> dict[str, float]:
    """Read a file of so many MiB and columns."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "large.csv")
        write(path, mib * MIB, columns)
        started, cpu = perf_counter(), process_time()
        spool = asyncio.run(spooled(LocalFile(path)))
        seconds, cpu = perf_counter() - started, process_time() - cpu
        peak = peak_rss_bytes(os.getpid()) or 0  # not the one of getrusage(), which begins with that of the process before
        return {
            "mib": round(path.stat().st_size / MIB),
            "records": spool.row_count,
            "bad": spool.bad_count,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu, 1),
            "records_per_cpu_second": round(spool.row_count / cpu),
            "peak_rss_mib": round(peak / MIB),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1000)
    parser.add_argument("--columns", type=int, default=len(COLUMNS))
    print(json.dumps(measure(**vars(parser.parse_args()))))
