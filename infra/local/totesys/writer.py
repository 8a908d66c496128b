"""Keeps writing to totesys as the application does: several connections, seeded, at a given rate, through restarts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import asyncpg
from pydantic import SecretStr

from infra.local.totesys import vocabulary
from infra.local.totesys.clerk import ChangedMindError, Clerk
from shared.errors import DependencyDownError, TransientError
from shared.postgres import classed_errors
from shared.postgres_url import CONNECT_LIMIT, read_url

Errand = Callable[[Clerk], Awaitable[None]]

ERRANDS: dict[Errand, int] = {  # and how often each is run, in a hundred
    Clerk.sell: 27,
    Clerk.buy: 11,
    Clerk.amend_sale: 18,
    Clerk.amend_purchase: 8,
    Clerk.settle_payment: 16,
    Clerk.move_staff: 2,
    Clerk.rename_department: 1,
    Clerk.correct_address: 3,
    Clerk.correct_counterparty: 3,
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
STATEMENT_LIMIT = timedelta(seconds=30)


@dataclass
class Written:
    """What became of the transactions: `committed` and what they wrote, `rows` by table, `errands` by name.

    `uncertain` counts those whose connection was lost during COMMIT: nobody but the database knows. Rows of these are not in
    `rows`. `lost` counts broken connections.
    """

    committed: int = 0
    rolled_back: int = 0
    uncertain: int = 0
    lost: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    errands: Counter[str] = field(default_factory=Counter)


async def write(
    url: str,
    *,
    rate_per_second: float,
    seed: int,
    until: asyncio.Event | timedelta,
    connections: int = 4,
    errands: dict[Errand, int] = ERRANDS,
) -> Written:
    """Write until the event is set or the time is over, then finish the open transactions.

    One connection more than `connections` runs the long transactions, beside the rate. `errands` are drawn by their weights:
    those of CANCELLING delete rows, too.
    Raises: DependencyDownError if the database can't be reached at the start (later it is waited for); PermanentError if it
    refuses a statement, as when it is no totesys.
    """
    stop = until if isinstance(until, asyncio.Event) else asyncio.Event()
    await (await connect(url)).close()
    if isinstance(until, timedelta):
        asyncio.get_running_loop().call_later(until.total_seconds(), stop.set)
    written = Written()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(connections):
                draw = vocabulary.seeded(f"{seed}/{number}")
                group.create_task(_Desk(url, draw, stop, written, errands, connections / rate_per_second).serve())
            slow = vocabulary.seeded(f"{seed}/slow")
            group.create_task(_Desk(url, slow, stop, written, {Clerk.work_slowly: 1}, BETWEEN_LONG.total_seconds()).serve())
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
        """Run errands until told to stop; when the connection breaks, wait and connect again."""
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
        while True:
            due = max(due + self.draw.expovariate(1 / self.interval), clock() - LAG_LIMIT)
            await self._pause(due - clock())
            if self.stop.is_set():
                with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await clerk.connection.close(timeout=CONNECT_LIMIT.total_seconds())
                return
            (errand,) = self.draw.choices(list(self.errands), list(self.errands.values()))
            await self._run(clerk, errand)
            if clerk.connection.is_closed():
                self.written.lost += 1
                return

    async def _run(self, clerk: Clerk, errand: Errand) -> None:
        """One errand in one transaction, counted by what became of it."""
        clerk.rows = Counter()
        is_committing = False
        try:
            with classed_errors("source"), _overtaken_by_others():
                async with clerk.connection.transaction():
                    await errand(clerk)
                    is_committing = True
        except (ChangedMindError, DependencyDownError, TransientError):
            self.written.uncertain += is_committing
            self.written.rolled_back += not is_committing
        else:
            self.written.committed += 1
            self.written.rows += clerk.rows
        self.written.errands[errand.__name__] += 1

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until told to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()


@contextmanager
def _overtaken_by_others() -> Iterator[None]:
    """Somebody has deleted what an errand refers to, or refers to what it deletes. Raises: ChangedMindError."""
    try:
        yield
    except asyncpg.ForeignKeyViolationError as error:
        raise ChangedMindError from error


async def connect(url: str) -> asyncpg.Connection:
    """A session whose CURRENT_TIMESTAMP is UTC. Raises: DependencyDownError, TransientError."""
    with classed_errors("source"):
        return await read_url("source", SecretStr(url)).connect(
            command_timeout=STATEMENT_LIMIT.total_seconds(), server_settings={"TimeZone": "UTC"}
        )
