"""Keeps writing to totesys as the application does: several connections, seeded, at a given rate, through restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import asyncpg

from services.operator.local.totesys.clerk import ChangedMindError, Clerk
from services.operator.local.totesys.fill import connect
from shared.errors import DependencyDownError, TransientError
from shared.postgres_errors import classed_errors
from shared.postgres_url import CONNECT_LIMIT

Errand = Callable[[Clerk], Awaitable[None]]

ERRANDS: dict[Errand, int] = {  # and how often each is run, in a hundred
    Clerk.sell: 27,
    Clerk.buy: 11,
    Clerk.amend_sale: 18,
    Clerk.amend_purchase: 8,
    Clerk.settle_payment: 16,
    Clerk.move_staff: 2,
    Clerk.correct: 7,
    Clerk.add_design: 2,
    Clerk.change_mind: 4,
    Clerk.undo_a_part: 5,
}
CANCELLING: dict[Errand, int] = ERRANDS | {
    Clerk.cancel_sale: 3,
    Clerk.drop_design: 1,
    Clerk.void_payment: 4,
    Clerk.issue_again: 3,
}
BETWEEN_LONG = timedelta(seconds=5)  # on average, from the end of a long transaction to the start of the next
LAG_LIMIT = 5.0  # seconds of missed writes that a connection makes up for; older ones are dropped
FIRST_RETRY, LAST_RETRY = 0.1, 5.0  # seconds between attempts to connect, doubled each time, full jitter


@dataclass
class Written:
    """What became of the transactions.

    `uncertain` counts those whose connection was lost during COMMIT: only the database knows whether they were committed.
    `lost` counts broken connections.
    """

    committed: int = 0
    rolled_back: int = 0
    uncertain: int = 0
    lost: int = 0


async def write(
    url: str,
    *,
    rate_per_second: float,
    seed: int,
    stop: asyncio.Event,
    connections: int = 4,
    errands: dict[Errand, int] = ERRANDS,
) -> Written:
    """Write until `stop` is set, then finish the open transactions.

    One connection more than `connections` runs the long transactions, besides the rate. `errands` are drawn by their weights:
    those of CANCELLING also delete rows.
    Raises: DependencyDownError if the database cannot be reached at the start (later the writer waits for it); PermanentError
    if it refuses a statement, as when it is not totesys.
    """
    await (await connect(url)).close()
    written = Written()
    desks = {f"{seed}/{number}": (errands, connections / rate_per_second) for number in range(connections)}
    desks[f"{seed}/slow"] = ({Clerk.work_slowly: 1}, BETWEEN_LONG.total_seconds())
    try:
        async with asyncio.TaskGroup() as group:
            for name, (drawn, interval) in desks.items():
                draw = Random(name)  # noqa: S311 - must be repeatable, keeps no secret  # nosec B311
                group.create_task(_Desk(url, draw, stop, written, drawn, interval).serve())
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
    return written


@dataclass
class _Desk:
    """Where a clerk works: one connection at a time, errands at random moments, on average `interval` seconds apart."""

    url: str
    draw: Random
    stop: asyncio.Event
    written: Written
    errands: dict[Errand, int]
    interval: float

    async def serve(self) -> None:
        """Run errands until `stop` is set; when the connection breaks, wait and connect again."""
        ceiling = FIRST_RETRY
        while not self.stop.is_set():
            try:
                connection = await connect(self.url)
            except (DependencyDownError, TransientError):
                await self._pause(self.draw.uniform(0, ceiling))
                ceiling = min(LAST_RETRY, 2 * ceiling)
                continue
            ceiling = FIRST_RETRY
            try:
                await self._run_errands(Clerk(connection, self.draw, self._pause))
            finally:
                connection.terminate()

    async def _run_errands(self, clerk: Clerk) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while not clerk.connection.is_closed():
            due = max(due + self.draw.expovariate(1 / self.interval), clock() - LAG_LIMIT)
            await self._pause(due - clock())
            if self.stop.is_set():
                with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await clerk.connection.close(timeout=CONNECT_LIMIT.total_seconds())
                return
            (errand,) = self.draw.choices(list(self.errands), list(self.errands.values()))
            await self._run(clerk, errand)
        self.written.lost += 1

    async def _run(self, clerk: Clerk, errand: Errand) -> None:
        """One errand in one transaction, counted by what became of it."""
        is_committing = False
        try:
            with classed_errors("source"):
                try:
                    async with clerk.connection.transaction():
                        await errand(clerk)
                        is_committing = True
                except asyncpg.ForeignKeyViolationError as error:
                    # Another errand has deleted what this one refers to, or refers to what this one deletes.
                    raise ChangedMindError from error
        except (ChangedMindError, DependencyDownError, TransientError):
            self.written.uncertain += is_committing
            self.written.rolled_back += not is_committing
        else:
            self.written.committed += 1

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until `stop` is set."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()
