"""A real stack under attack: two processes of each service, a writer on the source, and ways to break each of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

from contracts.messages import encode
from infra.local import processes
from infra.local.processes import Child
from infra.local.stack import Stack
from infra.local.state import service_environment
from services.operator.local.totesys.fill import ensure_filled
from services.operator.local.totesys.start import start_writing
from services.operator.system import SERVICES, OperatorSettings, open_system
from tests.chaos.points import POINTS_OF
from tests.chaos.timeline import Timeline

COPIES = 2
MARKED_SHARE = 0.6  # of the processes die at a named point; the others wait for a random fault
AFTER_AT_MOST = 5  # times that a point is passed before it kills
DRAIN_BUDGET = timedelta(seconds=5)
TICK_EVERY = timedelta(seconds=1)
# Shorter than in production, so that minutes show what takes an hour there: a lease that nobody renews ends after 10 s.
SETTINGS = {
    "STARLIFT_VISIBILITY_TIMEOUT_S": "10",
    "STARLIFT_DRAIN_BUDGET_S": f"{DRAIN_BUDGET.total_seconds():g}",
}


@dataclass
class Seat:
    """The place of one service process; a dead one is replaced."""

    service: str
    number: int
    child: Child | None = None
    seated: int = 0

    @property
    def name(self) -> str:
        """The name for people and for the log."""
        return f"{self.service}-{self.number}"


class Arena:
    """Everything that runs, and the ways to break it. `home` is for logs and data."""

    def __init__(self, stack: Stack, home: Path, draw: Random, timeline: Timeline, batch_rows: int) -> None:
        self.stack = stack
        self.timeline = timeline
        self.kills: Counter[str] = Counter()  # by point
        self._home = home
        self._draw = draw
        self._seats = [Seat(service, number) for service in SERVICES for number in range(1, COPIES + 1)]
        self._points = dict.fromkeys(SERVICES, 0)
        self._settings = SETTINGS | {"STARLIFT_BATCH_ROWS": str(batch_rows)}  # several batches a run, in flight at once
        self._kills_told = home / "kills"
        self._back_at: dict[str, float] = {}

    def start(self, *, orders: int, writes_per_second: float, lasting: timedelta) -> None:
        """The stack, its data, the services, the writer."""
        self.stack.start()
        self._kills_told.touch()
        os.environ.update(self.stack.state.environment_for("operator"))
        owner_url = str(self.stack.source_owner_url)
        asyncio.run(ensure_filled(owner_url, orders=orders))
        self.seat_services()
        seed = self._draw.randrange(2**31)
        log = self._home / "application.log"
        rate = writes_per_second
        writer = start_writing(owner_url, per_second=rate, lasting=lasting, seed=seed, log=log, cancelling=True)
        self.stack.adopt("application", writer)

    def seat_services(self, *, may_die: bool = True) -> None:
        """Start a process on each empty seat."""
        for seat in self._seats:
            if seat.child is not None and (code := seat.child.exit_code()) is not None:
                self._note_end(seat, code)
                seat.child = None
            if seat.child is None:
                self._seat(seat, may_die=may_die)

    def tend(self, *, may_die: bool = True) -> None:
        """Repair what is due: services at once, servers when their time has come."""
        now = time.monotonic()
        for name in [name for name, due in self._back_at.items() if now >= due]:
            del self._back_at[name]
            self.timeline.note("back", name)
        if not self.is_down:
            for event in self.stack.tend():
                self.timeline.note("repaired", event)
        self.seat_services(may_die=may_die)

    def wait_until_repaired(self) -> None:
        """Wait until every server that was taken down is back."""
        self._back_at.clear()
        self.tend(may_die=False)
        for seat in self._seats:  # processes due to die have done their part
            if seat.child is not None:
                os.kill(seat.child.id.pid, signal.SIGTERM)

    @property
    def is_down(self) -> bool:
        """True while a database refuses connections. Only services are broken meanwhile: repairs come all at once."""
        return bool(self._back_at)

    def kill_service(self) -> None:
        """Send SIGKILL at any point of its work."""
        seat = self._draw.choice(self._seats)
        if seat.child is not None and seat.child.exit_code() is None:
            os.kill(seat.child.id.pid, signal.SIGKILL)

    def stop_service(self) -> None:
        """Send SIGTERM, as a deployment does, so that it drains."""
        seat = self._draw.choice(self._seats)
        if seat.child is not None and seat.child.exit_code() is None:
            self.timeline.note("SIGTERM", seat.name)
            os.kill(seat.child.id.pid, signal.SIGTERM)

    def crash_database(self, name: str) -> None:
        """Send SIGKILL to PostgreSQL: it recovers at its next start, and reuses transaction ids."""
        self.timeline.note("crash", f"PostgreSQL '{name}'")
        self.stack.clusters[name].kill()

    def refuse_connections(self, name: str, seconds: float) -> None:
        """Stop PostgreSQL for a while."""
        self.timeline.note("down", f"PostgreSQL '{name}' for {seconds:.0f} s")
        self.stack.clusters[name].stop()
        self._back_at[f"PostgreSQL '{name}'"] = time.monotonic() + seconds

    def restart_localstack(self) -> None:
        """Restart LocalStack, which forgets every queue, message, bucket and object."""
        self.timeline.note("amnesia", "LocalStack is killed and forgets everything")
        if self.stack.localstack is not None:
            self.stack.localstack.child.stop(within=timedelta(seconds=5), first=signal.SIGKILL)

    def send_old_batches_again(self) -> None:
        """Send messages again long after their first delivery."""

        async def send() -> int:
            async with open_system(OperatorSettings()) as system:
                manifests = await system.store.manifests_after(0)
                batches = [batch for manifest in manifests for batch in manifest.batches]
                chosen = self._draw.sample(batches, min(3, len(batches)))
                for batch in chosen:
                    await system.queues["remodelling"].send(encode(batch))
                return len(chosen)

        self.timeline.note("repeated", f"{asyncio.run(send())} old batches are sent again")

    def stop_services(self) -> None:
        """Drain all of them at once."""
        running = [seat.child.id for seat in self._seats if seat.child is not None]
        processes.stop(running, within=DRAIN_BUDGET + timedelta(seconds=10))
        for seat in self._seats:
            if seat.child is not None:
                seat.child.popen.wait()
                seat.child = None

    def _seat(self, seat: Seat, *, may_die: bool) -> None:
        seat.seated += 1
        points = POINTS_OF[seat.service]
        marked = may_die and self._draw.random() < MARKED_SHARE
        point = points[self._points[seat.service] % len(points)] if marked else ""
        self._points[seat.service] += marked
        chaos = {
            "CHAOS_SEED": str(self._draw.randrange(2**31)),
            "CHAOS_POINT": point,
            "CHAOS_AFTER": str(self._draw.randint(1, AFTER_AT_MOST)),
            "CHAOS_KILLS": str(self._kills_told),
        }
        seat.child = processes.start(
            [sys.executable, "-m", "tests.chaos.saboteur", seat.service],
            log=self._home / f"{seat.name}.log",
            environment=service_environment(seat.service, self.stack.state, os.environ) | self._settings | chaos,
            directory=Path(__file__).parents[2],
        )
        self.stack.adopt(seat.name, seat.child)

    def _note_end(self, seat: Seat, code: int) -> None:
        pid = seat.child.id.pid if seat.child is not None else 0
        points = dict(line.split(" ", 1) for line in self._kills_told.read_text().splitlines())
        if code == -signal.SIGKILL:
            point = points.get(str(pid), "anywhere")
            self.kills[f"{seat.service}: {point}"] += 1
            self.timeline.note("SIGKILL", f"{seat.name}: {point}")
        else:
            self.timeline.note("ended", f"{seat.name} with {code}")
