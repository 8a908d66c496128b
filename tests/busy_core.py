"""A slow machine: one core, and two programs on it that never pause."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BUSY_LOOPS = 2


@contextmanager
def busy_core() -> Iterator[None]:
    """Processes started inside share one core with BUSY_LOOPS busy loops (all cores, where none can be chosen)."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if cores is not None:
        os.sched_setaffinity(0, {min(cores)})
    loops = BUSY_LOOPS if cores is not None else BUSY_LOOPS * (os.cpu_count() or 1)
    running: list[subprocess.Popen[bytes]] = []
    try:
        running += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
        yield
    finally:
        for loop in running:
            loop.kill()
            loop.wait()
        if cores is not None:
            os.sched_setaffinity(0, cores)
