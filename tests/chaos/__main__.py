"""Break everything for some minutes, then judge: `python -m tests.chaos --seed 1 --minutes 10 [--report FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.local.stack import Stack
from services.operator.system import OperatorSettings, open_system
from services.operator.terminal.harness import sigterm_as_interrupt
from shared.errors import DependencyDownError, TransientError
from tests.chaos.arena import TICK_EVERY, Arena
from tests.chaos.judge import Findings, judge
from tests.chaos.timeline import Timeline

LOOK_EVERY_S = 0.2
BETWEEN_FAULTS_S = 2.0  # on average
ORDERS = 1_000
WRITES_PER_SECOND = 20.0
# Of a batch. A small one makes the tasks share the first load; once that is killed, the comparison of keys waits five minutes.
SHARED_ROWS, FEW_BATCHES_ROWS, SHARED_FROM = 150, 2_000, timedelta(minutes=1)
CALM = timedelta(seconds=3)  # before the first fault
PATIENCE = 25  # how many times its planned length it may take until a process was killed: a busy machine starts slowly
AWAY_S = (5.0, 30.0)  # how long a database refuses connections

Fault = Callable[[Arena, Random], None]
SERVICE_FAULTS: dict[str, tuple[int, Fault]] = {  # and how often each is drawn, in a hundred
    "kill a service": (47, lambda arena, _: arena.kill_service()),
    "stop a service": (20, lambda arena, _: arena.stop_service()),
    "old deliveries": (12, lambda arena, _: arena.send_old_batches_again()),
}
WORLD_FAULTS: dict[str, tuple[int, Fault]] = {
    "crash the source": (5, lambda arena, _: arena.crash_database("source")),
    "crash the warehouse": (5, lambda arena, _: arena.crash_database("warehouse")),
    "source away": (4, lambda arena, draw: arena.refuse_connections("source", draw.uniform(*AWAY_S))),
    "warehouse away": (4, lambda arena, draw: arena.refuse_connections("warehouse", draw.uniform(*AWAY_S))),
    "amnesia": (3, lambda arena, _: arena.restart_localstack()),
}


@dataclass(frozen=True, slots=True)
class Report:
    """The actions and findings of a run of chaos."""

    seed: int
    seconds: float
    kills: dict[str, int]
    happened: dict[str, int]
    findings: Findings

    def as_json(self) -> dict[str, Any]:
        """Everything but the timeline."""
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "kills": sum(self.kills.values()),
            "killed_at": self.kills,
            "happened": self.happened,
            "findings": self.findings.as_json(),
            "clean": self.findings.is_clean,
        }


def run(seed: int, lasting: timedelta, home: Path, tell: Callable[[str], None]) -> Report:
    """Play one seed. The same seed draws the same faults; their effect depends on the machine."""
    draw = Random(seed)  # noqa: S311 (repeatable on purpose)
    timeline = Timeline(tell)
    with sigterm_as_interrupt(), Stack(home) as stack:
        arena = Arena(stack, home, draw, timeline, SHARED_ROWS if lasting >= SHARED_FROM else FEW_BATCHES_ROWS)
        arena.start(orders=ORDERS, writes_per_second=WRITES_PER_SECOND, lasting=lasting)
        timeline.note("seed", str(seed))
        _break_things(arena, draw, lasting)
        timeline.note("calm", "no more faults; what is broken is repaired")
        findings = _settle(arena, timeline)
        arena.stop_services()
        return Report(seed, time.monotonic() - timeline.began, dict(arena.kills), timeline.counts(), findings)


def _break_things(arena: Arena, draw: Random, lasting: timedelta) -> None:
    (ticker,) = arena.stack.tickers(TICK_EVERY)
    now = time.monotonic()
    end, next_fault = now + lasting.total_seconds(), now + CALM.total_seconds()
    latest = now + PATIENCE * lasting.total_seconds()
    while (now := time.monotonic()) < end or (now < latest and not arena.kills):
        try:
            arena.tend()
            ticker.tick()
            if now >= next_fault:
                next_fault = now + draw.expovariate(1 / BETWEEN_FAULTS_S)
                _draw_fault(arena, draw)(arena, draw)
        except (BotoCoreError, ClientError, DependencyDownError, TransientError) as error:
            arena.timeline.note("unanswered", type(error).__name__)  # LocalStack is away just now
        time.sleep(LOOK_EVERY_S)


def _draw_fault(arena: Arena, draw: Random) -> Fault:
    faults = [*SERVICE_FAULTS.values(), *([] if arena.is_down else WORLD_FAULTS.values())]
    return draw.choices([fault for _, fault in faults], [weight for weight, _ in faults])[0]


def _settle(arena: Arena, timeline: Timeline) -> Findings:
    """Keep the services up while the judge waits and looks."""

    async def watched() -> Findings:
        async with open_system(OperatorSettings()) as system:
            judging = asyncio.create_task(judge(system, amnesia=timeline.has("amnesia")))
            while not judging.done():
                arena.tend(may_die=False)
                await asyncio.wait([judging], timeout=LOOK_EVERY_S)
            return judging.result()

    arena.wait_until_repaired()
    return asyncio.run(watched())


def main() -> int:
    """Exit code 0 if the guarantee held, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--report", type=Path, help="a file for the timeline and the findings")
    arguments = parser.parse_args()
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    with TemporaryDirectory(prefix="starlift-chaos-") as directory:
        home = Path(directory) / "stack"
        try:
            report = run(arguments.seed, timedelta(minutes=arguments.minutes), home, tell)
        finally:
            Stack.remove(home)
    told = json.dumps(report.as_json(), indent=2)
    print(told)
    if arguments.report is not None:
        arguments.report.write_text("\n".join([*lines, "", told, ""]))
    return 0 if report.findings.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
