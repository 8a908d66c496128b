"""`starlift demo`: the main job, start to end, in a stack of its own that is gone afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from contracts.messages import Trigger
from contracts.proofs import Outcome
from contracts.state import Manifest
from services.operator.exit_codes import ExitCode
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.local.latency import Latency, Watch, read_latency
from services.operator.local.stage import stage
from services.operator.local.totesys.writer import start_writing
from services.operator.proof.verdict import Verdict
from services.operator.proof.verify import verify
from services.operator.system import OperatorSettings, System, open_system
from shared.ledger import row_count, run_count

RUN_EVERY = timedelta(seconds=1)
WRITES_PER_SECOND = 20.0
LOAD_LIMIT = timedelta(minutes=30)  # a guard against a hang, not against a slow machine
LAST_RUNS = 5
EXIT_CODES = {Outcome.EQUAL: ExitCode.DONE, Outcome.DIFFERENT: ExitCode.DIFFERENT, Outcome.PENDING: ExitCode.NOT_LOADED}
LOOK_EVERY = timedelta(milliseconds=100)
SEED = 7
COLOURS = {Outcome.EQUAL: "green", Outcome.PENDING: "yellow", Outcome.DIFFERENT: "red"}


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo measured. `first_load` is from the command to the last batch in the warehouse."""

    first_rows: int
    first_load: timedelta
    runs: int
    latency: Latency | None
    verdict: Verdict

    @property
    def outcome(self) -> Outcome:
        """The outcome, which decides the colour and the exit code."""
        return _outcome(self.verdict)


def run(console: Console, *, orders: int, seconds: float) -> ExitCode:
    """Play it; DONE if the warehouse equals the source at the end."""
    with stage(console, orders=orders, every=RUN_EVERY) as (owner_url, home):
        result = asyncio.run(_play(console, owner_url, home, timedelta(seconds=seconds)))
    console.print(summary(result))
    return EXIT_CODES[result.outcome]


async def _play(console: Console, owner_url: str, home: Path, lasting: timedelta) -> Result:
    async with open_system(OperatorSettings()) as system:
        with console.status("first load: everything, through three queues"):
            first, took = await _timed_run(system)
        rows = await _loaded_rows(system, first.run)
        console.print(f"first load: {rows:,} star rows in {took.total_seconds():.1f} s", highlight=False)
        watch = Watch(system.contract, system.warehouse)
        await watch.look()
        began = datetime.now(UTC)
        writer = start_writing(
            owner_url, per_second=WRITES_PER_SECOND, lasting=lasting, seed=SEED, log=home / "application.log"
        )
        with console.status("") as shown:
            await _keep_up(system, watch, lambda: writer.exit_code() is None, shown.update)
        with console.status("last run, and the proof"):
            verdict = await _prove(system)
            await watch.look()
            latency = await read_latency(system.contract, system.source, watch, began)
            runs = await _run_count(system)
    return Result(rows, took, runs, latency, verdict)


async def _timed_run(system: System) -> tuple[Manifest, timedelta]:
    began = time.monotonic()
    manifest = await wait_until_loaded(system, await request_run(system), limit=LOAD_LIMIT)
    return manifest, timedelta(seconds=time.monotonic() - began)


async def _prove(system: System) -> Verdict:
    """Prove after a last run; while rows are in flight, run and prove again."""
    runs = 0
    while True:
        await _timed_run(system)
        runs += 1
        verdict = await verify(system)
        if _outcome(verdict) is not Outcome.PENDING or runs == LAST_RUNS:
            return verdict


def _outcome(verdict: Verdict) -> Outcome:
    """EQUAL only without rows in flight: the application has stopped, so the last run should have read every row."""
    return Outcome.PENDING if verdict.is_equal and verdict.in_flight else verdict.outcome


async def _keep_up(system: System, watch: Watch, is_writing: Callable[[], bool], tell: Callable[[str], None]) -> None:
    """Ask for a run each second and look at the warehouse ten times as often, while the application writes."""
    before, began = len(watch.seen), time.monotonic()
    next_run = 0.0
    while is_writing():
        now = time.monotonic() - began
        if now >= next_run:
            await request_run(system, trigger=Trigger.SCHEDULE)
            next_run = now + RUN_EVERY.total_seconds()
        await watch.look()
        tell(f"the application writes, {now:.0f} s; {len(watch.seen) - before:,} new row versions have arrived")
        await asyncio.sleep(LOOK_EVERY.total_seconds())


async def _loaded_rows(system: System, run_number: int) -> int:
    async with system.warehouse.transaction(readonly=True) as connection:
        return await row_count(connection, run_number)


async def _run_count(system: System) -> int:
    async with system.warehouse.transaction(readonly=True) as connection:
        return await run_count(connection)


def summary(result: Result) -> Panel:
    """The page at the end."""
    rows = Table("table", "rows in the source", "rows found equal", box=None, pad_edge=False)
    for column in rows.columns[1:]:
        column.justify = "right"
    for table in result.verdict.tables:
        equal = table.expected - table.different - table.in_flight - table.stuck - table.quarantined
        rows.add_row(table.table, f"{table.expected:,}", f"{equal:,}")
    facts = Table(box=None, show_header=False, pad_edge=False)
    seconds = result.first_load.total_seconds()
    rate = result.first_rows / seconds
    facts.add_row("first load", f"{result.first_rows:,} star rows in {seconds:.1f} s ({rate:,.0f} a second)")
    if result.latency is not None:
        spread = f"median {result.latency.median:.2f} s, worst {result.latency.worst:.2f} s"
        facts.add_row("commit to warehouse", f"{spread}, of {result.latency.count:,} row versions")
    facts.add_row("runs loaded", f"{result.runs:,}")
    still = f"[bold {COLOURS[result.outcome]}]PENDING[/]: rows are still in flight after {LAST_RUNS} runs"
    is_proved = result.outcome is result.verdict.outcome
    word, _, rest = result.verdict.sentence.partition(" ")
    proved = f"[bold {COLOURS[result.outcome]}]{word}[/] {escape(rest)}"
    facts.add_row("verdict", proved if is_proved else still)
    return Panel(Group(rows, "", facts), title="Starlift", border_style=COLOURS[result.outcome], expand=False)
