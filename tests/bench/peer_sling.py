"""Another peer: sling, a program in Go, copies the same tables from PostgreSQL to PostgreSQL.

In its fastest form: one replication, both ends by COPY (its default), as many tables at once as the machine has processors.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psutil

_WHERE = "import sling_linux_amd64 as sling; print(sling.SLING_BIN, sling.SLING_VERSION)"


def find_program(python: Path) -> tuple[str, str] | None:
    """The program in the environment of `python`, and its version; None where it is not: the wheel is for Linux on x86-64."""
    found = subprocess.run([python, "-c", _WHERE], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        return None
    program, version = found.stdout.split()
    return program, version


def copy_tables(program: str, source_url: str, target_url: str, tables: Sequence[str]) -> tuple[float, int]:
    """Copy `tables` into the target's schema `peer`. Returns: seconds, and the most memory in bytes."""
    replication = {
        "source": "BENCH_SOURCE",
        "target": "BENCH_TARGET",
        "defaults": {"mode": "full-refresh", "object": "peer.{stream_table}"},
        "streams": {f"public.{table}": {} for table in tables},
        "env": {"SLING_THREADS": os.cpu_count()},
    }
    with TemporaryDirectory() as directory:
        file = Path(directory) / "replication.json"  # JSON is YAML
        file.write_text(json.dumps(replication))
        environment = os.environ | {
            "BENCH_SOURCE": f"{source_url}?sslmode=disable",
            "BENCH_TARGET": f"{target_url}?sslmode=disable",
            "SLING_DISABLE_TELEMETRY": "true",
            "SLING_HOME_DIR": directory,
        }
        started = perf_counter()
        with (Path(directory) / "log").open("w+") as log:
            running = psutil.Popen([program, "run", "-r", str(file)], env=environment, stdout=log, stderr=log)
            _, status, used = os.wait4(running.pid, 0)
            seconds = perf_counter() - started
            if status:
                log.seek(0)
                raise subprocess.CalledProcessError(status, program, stderr=log.read())
    return seconds, used.ru_maxrss * 1024
