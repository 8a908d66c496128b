"""What a method of loading uses: CPU-seconds and peak memory by group of processes, requests to LocalStack.

CPU-seconds (user and system) repeat within 5 % on a busy machine, where wall time moves twofold.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.local.stack import Stack

NAMES = {"postgres-source": "source server", "postgres-warehouse": "warehouse server", "localstack": "LocalStack"}
_REQUEST = re.compile(r"AWS (\w+)\.(\w+) => ")


@dataclass
class Usage:
    """What was used while something was measured; filled in when that ends."""

    cpu_seconds: dict[str, float] = field(default_factory=dict)  # user and system, by group of processes
    peak_rss_bytes: dict[str, int] = field(default_factory=dict)  # of each service, since it started
    requests: dict[str, int] = field(default_factory=dict)  # to LocalStack, by service and operation

    @property
    def cpu_total(self) -> float:
        """Of all groups together."""
        return sum(self.cpu_seconds.values())


def log_requests() -> None:
    """Have LocalStack, when it starts, log a line per request; `metered` counts them."""
    os.environ["LS_LOG"] = "info"


@contextmanager
def metered(stack: Stack, client: str) -> Iterator[Usage]:
    """Measure what the block uses. Our own process, with the children that it waits for, is the group `client`."""
    usage, log = Usage(), _request_log(stack)
    before, read = _cpu_seconds(stack, client), log.stat().st_size
    yield usage
    usage.cpu_seconds = {name: round(seconds - before.get(name, 0), 2) for name, seconds in _cpu_seconds(stack, client).items()}
    peaks = {service: peak_rss_bytes(stack.state.processes[service].pid) for service in _services(stack)}
    usage.peak_rss_bytes = {service: peak for service, peak in peaks.items() if peak is not None}
    with log.open("rb") as lines:
        lines.seek(read)
        found = _REQUEST.findall(lines.read().decode(errors="replace"))
    usage.requests = dict(sorted(Counter(".".join(request) for request in found).items()))


def _services(stack: Stack) -> list[str]:
    return [service for service in stack.topology.services if service in stack.state.processes]


def _cpu_seconds(stack: Stack, client: str) -> dict[str, float]:
    """Since each group started, by its name."""
    groups = {NAMES.get(name, name): process.pid for name, process in stack.state.processes.items()}
    return {name: _of_tree(psutil.Process(pid)) for name, pid in groups.items()} | {client: _with_ended(psutil.Process())}


def _of_tree(root: psutil.Process) -> float:
    """Of a process and those below it. One that ends counts in its parent from then on, so none may end while we add up."""
    while True:
        processes = [root, *root.children(recursive=True)]
        with suppress(psutil.NoSuchProcess):
            used = sum(map(_with_ended, processes))
            if [root, *root.children(recursive=True)] == processes:
                return used


def _with_ended(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _request_log(stack: Stack) -> Path:
    if stack.localstack is None:
        raise RuntimeError("the stack has to run before it is measured")
    return stack.localstack.child.log


def peak_rss_bytes(pid: int) -> int | None:
    """The most memory that a process ever had resident; known only on Linux."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
