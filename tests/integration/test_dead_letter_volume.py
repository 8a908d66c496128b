"""Thousands of dead letters are listed and replayed with little memory and no faster than requested."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil
import pytest

from contracts.dead_letters import End, Kind
from infra.local.localstack import LocalStack
from services.operator.dlq.audit import Author
from services.operator.dlq.filters import Filter
from services.operator.dlq.looking import survey
from services.operator.dlq.operations import Task, carry_out
from services.operator.system import System
from shared.queue import Outgoing, SqsQueue
from shared.service import open_clients
from tests.fixtures.localstack import REGION
from tests.integration.dead_letter_stand import SERVICE, letters, stands_on, system_of

pytestmark = pytest.mark.localstack
FEW, MANY = 100, 1_000
RATES = {FEW: 25.0, MANY: 250.0}  # the first is less than any machine can do
GROWTH_MAXIMUM = 12 * 1024 * 1024  # the letters alone, parsed, would take three times as much
SENDERS, CHUNK = 5, 20
EXTRACTS = 8  # of a batch: a letter, parsed, takes 40 KiB


@dataclass
class Meter:
    """The peak memory of this process, and how much it had sent at which time."""

    peak: int = 0
    sends: list[tuple[float, int]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Letters per second, not counting the first."""
        seconds = self.sends[-1][0] - self.sends[0][0]
        return (sum(count for _, count in self.sends) - self.sends[0][1]) / seconds

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        process = psutil.Process()

        async def watch() -> None:
            while True:
                self.peak = max(self.peak, process.memory_info().rss)
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        yield
        watching.cancel()


async def seed(system: System, count: int) -> None:
    """Letters of more than a kilobyte each, as real ones have; few of them in memory at a time."""
    starts = iter(range(0, count, CHUNK))

    async def send(starts: Iterator[int]) -> None:
        for _ in starts:
            await system.dead_letters[SERVICE].send_all(letters(CHUNK, run=7, extracts=EXTRACTS))

    await asyncio.gather(*(send(starts) for _ in range(SENDERS)))


async def list_and_replay(system: System, count: int, meter: Meter) -> None:
    await seed(system, count)
    async with meter.watching():
        pile = await survey(system, SERVICE)
        assert (pile.letters, [group.count for group in pile.groups]) == (count, [count])
        replayed = await carry_out(system, SERVICE, Task(Kind.REPLAY, Filter(), rate=RATES[count]), Author("ann"))
    assert replayed.ended is not None
    assert (replayed.ended.end, replayed.ended.counts) == (End.DONE, {"replayed": count})
    dead = await system.dead_letters[SERVICE].depth()
    assert dead.visible + dead.in_flight == 0


async def test_many_letters_are_replayed_in_bounded_memory_at_the_requested_rate(
    localstack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stand,) = stands_on(localstack, 1)
    for name, value in stand.aws.items():
        monkeypatch.setenv(name, value)
    meters = {FEW: Meter(), MANY: Meter()}
    send_all = SqsQueue.send_all

    async with open_clients(REGION) as clients:
        system = system_of(stand, clients)
        for count, meter in meters.items():

            async def noting(queue: SqsQueue, messages: list[Outgoing], meter: Meter = meter) -> list[str | None]:
                if not queue.name.endswith("-dlq"):
                    meter.sends.append((asyncio.get_running_loop().time(), len(messages)))
                return await send_all(queue, messages)

            monkeypatch.setattr(SqsQueue, "send_all", noting)
            await list_and_replay(system, count, meter)
        assert (await system.queues[SERVICE].depth()).visible == FEW + MANY
    growth = meters[MANY].peak - meters[FEW].peak
    rates = {count: round(meter.rate) for count, meter in meters.items()}
    print(f"letters a second: {rates}; {growth / 1024 / 1024:.1f} MiB more for ten times the letters")  # noqa: T201
    for count, meter in meters.items():
        assert sum(sent for _, sent in meter.sends) == count
        assert meter.rate <= RATES[count] * 1.25  # a batch, a quarter of a second's, goes at once
    assert growth < GROWTH_MAXIMUM
