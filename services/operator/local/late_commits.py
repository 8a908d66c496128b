"""`starlift demo --late-commit`: what a watermark on `last_updated` loses, compared with Starlift on the same source."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg

from contracts.messages import Role
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.local.demo import stage
from services.operator.local.totesys.fill import connect
from services.operator.local.up import Screen
from services.operator.system import OperatorSettings, System, open_system

LIMIT = timedelta(minutes=30)  # a guard against a hang, not against a slow machine
ORDERS = 300
NAMES = {"design": "design_name", "staff": "first_name"}  # what is read of each table
ADD = "INSERT INTO design (design_name, file_location, file_name, last_updated) VALUES ($1, '/', 'demo', now())"
RENAME = "UPDATE staff SET first_name = $1, last_updated = now() WHERE staff_id = $2"
SLOW = ("slow: new design", "slow: renamed staff", "slow: under a savepoint")
QUICK = ("quick: new design", "quick: renamed staff")
HELD = "SELECT design_name FROM dim_design UNION ALL SELECT first_name FROM dim_staff"


@dataclass
class Poller:
    """What most tools do: read the rows whose `last_updated` is above the highest one read so far, and remember the highest."""

    source: asyncpg.Connection
    watermarks: dict[str, datetime] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    async def poll(self) -> int:
        """One pass; how many rows it found."""
        found = 0
        for table, name in NAMES.items():
            query = f"SELECT {name}, last_updated FROM {table} WHERE last_updated > $1 ORDER BY last_updated"
            rows = await self.source.fetch(query, self.watermarks.get(table, datetime.min))  # noqa: DTZ901 (as the column is)
            found += len(rows)
            self.names |= {row[name] for row in rows}
            if rows:
                self.watermarks[table] = rows[-1]["last_updated"]
        return found


@dataclass(frozen=True, slots=True)
class Step:
    """What happens at the source, and how many rows the watermark and Starlift then read."""

    event: str
    polled: int
    read: int


@dataclass(frozen=True, slots=True)
class LateCommits:
    """What became of the rows of QUICK and SLOW: the names that the watermark copied, and those that the warehouse holds."""

    steps: list[Step]
    copied: set[str]
    loaded: set[str]

    @property
    def is_complete(self) -> bool:
        """Whether the warehouse has every row."""
        return self.loaded.issuperset((*SLOW, *QUICK))


def run(screen: Screen) -> LateCommits:
    """Commit rows late, and read them in both ways."""
    with stage(screen, orders=ORDERS, every=LIMIT) as (owner_url, _):
        return asyncio.run(_play(owner_url))


async def _play(owner_url: str) -> LateCommits:
    slow, quick, reader = [await connect(owner_url) for _ in range(3)]
    poller = Poller(reader)
    try:
        async with open_system(OperatorSettings()) as system:
            steps = [Step("the first load", await poller.poll(), await _run(system))]
            transaction = slow.transaction()
            await transaction.start()
            await slow.execute(ADD, SLOW[0])
            await slow.execute(RENAME, SLOW[1], 1)
            async with slow.transaction():  # a savepoint
                await slow.execute(ADD, SLOW[2])
            await asyncio.sleep(0.1)  # last_updated has milliseconds
            await quick.execute(ADD, QUICK[0])
            await quick.execute(RENAME, QUICK[1], 2)
            event = "a transaction writes 3 rows and stays open; another, begun later, writes 2 and commits"
            steps.append(Step(event, await poller.poll(), await _run(system)))
            await transaction.commit()
            steps.append(Step("the first one commits", await poller.poll(), await _run(system)))
            steps.append(Step("nothing more happens", await poller.poll(), await _run(system)))
            async with system.warehouse.transaction(readonly=True) as warehouse:
                held = {row[0] for row in await warehouse.fetch(HELD)}
    finally:
        for connection in (slow, quick, reader):
            await connection.close()
    return LateCommits(steps, poller.names, held)


async def _run(system: System) -> int:
    """A run of ours into the warehouse; how many rows of the two tables it read."""
    manifest = await wait_until_loaded(system, await request_run(system), limit=LIMIT)
    extracts = (extract for batch in manifest.batches for extract in batch.data.extracts)
    return sum(one.object.row_count for one in extracts if one.table in NAMES and one.role is Role.BASE)
