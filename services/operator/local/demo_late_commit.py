"""`starlift demo --late-commit`: what a watermark on `last_updated` loses, beside a run of ours, on the same source."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table

from contracts.messages import Role
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.local.stage import stage
from services.operator.local.totesys.fill import connect
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
    """What happens at the source, and how many rows each of the two then reads."""

    event: str
    polled: int
    read: int


def run(console: Console) -> bool:
    """Play it; whether the warehouse has every row."""
    with stage(console, orders=ORDERS, every=LIMIT) as (owner_url, _):
        steps, polled, held = asyncio.run(_play(owner_url))
    console.print(_summary(steps, polled, held))
    lost = [sum(name not in found for name in SLOW) for found in (polled, held)]
    verdict = f"Of 3 rows that were committed late the watermark lost {lost[0]}, for good; Starlift {lost[1]}."
    console.print(verdict, highlight=False, soft_wrap=True)
    return held.issuperset((*SLOW, *QUICK))


async def _play(owner_url: str) -> tuple[list[Step], set[str], set[str]]:
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
    return steps, poller.names, held


async def _run(system: System) -> int:
    """A run of ours into the warehouse; how many rows of the two tables it read."""
    manifest = await wait_until_loaded(system, await request_run(system), limit=LIMIT)
    extracts = (extract for batch in manifest.batches for extract in batch.data.extracts)
    return sum(one.object.row_count for one in extracts if one.table in NAMES and one.role is Role.BASE)


def _summary(steps: Sequence[Step], polled: set[str], held: set[str]) -> Panel:
    """The page at the end."""
    told = Table("at the source", "last_updated > watermark reads", "Starlift reads", box=None, pad_edge=False)
    rows = Table("row", "copied by the watermark", "in the warehouse", box=None, pad_edge=False)
    for step in steps:
        told.add_row(step.event, f"{step.polled:,}", f"{step.read:,}")
    for name in (*QUICK, *SLOW):
        rows.add_row(name, _mark(is_there=name in polled), _mark(is_there=name in held))
    return Panel(Group(told, "", rows), title="Late commits", expand=False)


def _mark(*, is_there: bool) -> str:
    return "[green]yes[/]" if is_there else "[bold red]LOST[/]"
