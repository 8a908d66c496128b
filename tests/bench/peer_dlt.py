"""The peer: dlt copies the same tables from PostgreSQL to PostgreSQL. Runs in its own environment, prints one JSON object.

In its fastest form: the `sql_database` source with the pyarrow backend, and CSV load files, which it loads by COPY (tried:
Parquet took 1.2 times, its default INSERT statements 2.1 times as long; larger and smaller chunks gained nothing).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from tempfile import TemporaryDirectory
from time import perf_counter

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"

import dlt
from dlt.sources.sql_database import sql_database


def copy_tables(source_url: str, target_url: str, tables: list[str], directory: str) -> float:
    """Copy `tables` into the target's schema `peer`. Returns: seconds, without Python's start and dlt's import."""
    pipeline = dlt.pipeline(
        "peer", destination=dlt.destinations.postgres(target_url), dataset_name="peer", pipelines_dir=directory
    )
    driver_url = source_url.replace("postgresql://", "postgresql+psycopg2://")
    source = sql_database(driver_url, table_names=tables, backend="pyarrow", chunk_size=50_000)
    started = perf_counter()
    pipeline.run(source, write_disposition="replace", loader_file_format="csv").raise_on_failed_jobs()
    return perf_counter() - started


def main() -> None:
    """Copy once and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="URL of the database to read")
    parser.add_argument("--target", required=True, help="URL of an empty database; dlt insists on a password in it")
    parser.add_argument("tables", nargs="+")
    arguments = parser.parse_args()
    with TemporaryDirectory() as directory:
        seconds = copy_tables(arguments.source, arguments.target, arguments.tables, directory)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    json.dump({"seconds": seconds, "peak_rss_bytes": peak_bytes, "version": dlt.__version__}, sys.stdout)


if __name__ == "__main__":
    main()
