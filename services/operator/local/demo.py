"""`starlift demo`: the main job, start to end, in a stack of its own that is removed afterwards."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import resources
from pathlib import Path

from contracts.messages import Trigger
from contracts.proofs import Outcome
from contracts.state import Manifest
from infra.local.machine import disk_errors
from infra.local.stack import Stack
from infra.local.state import OPERATOR, Home, default_home, service_environment, writing
from services.operator.errors import OperatorError
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.local.latency import Latency, Watch, read_latency
from services.operator.local.totesys.rates import contract_with_rates, serving_rates
from services.operator.local.totesys.start import start_writing
from services.operator.local.up import Screen, UpOptions, start, start_services
from services.operator.locate import enter
from services.operator.proof.verdict import Verdict
from services.operator.proof.verify import verify
from services.operator.system import OperatorSettings, System, open_system
from shared.ledger import row_count, run_count
from shared.settings import PREFIX
from shared.sql import quoted

RUN_EVERY = timedelta(seconds=1)
WRITES_PER_SECOND = 20.0
LOAD_LIMIT = timedelta(minutes=30)  # a guard against a hang, not against a slow machine
LAST_RUNS = 5
LOOK_EVERY = timedelta(milliseconds=100)
SEED = 7
SOURCE, RATES = "totesys", "rates"  # the sources of the demo
_WORST_FIRST = (Outcome.DIFFERENT, Outcome.PENDING, Outcome.EQUAL)
_SALES = "SELECT sum(sales)::bigint, sum(sales_without_rate)::bigint, coalesce(sum(amount_gbp), 0) FROM public.sales_in_gbp"
_VIEW = resources.files("contracts").joinpath("sales_in_gbp.sql")


@dataclass(frozen=True, slots=True)
class Sales:
    """What the view `sales_in_gbp` shows, of all days: `amount` is in pounds, without the sales that have no rate."""

    count: int
    without_rate: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo measured.

    `first_rows` are the star rows of the first load, `first_load` is the time from its command to the last batch in the
    warehouse, `runs` counts the runs that loaded anything, `latency` is None where nothing was written, and `verdicts` are by
    source.
    """

    first_rows: int
    first_load: timedelta
    runs: int
    latency: Latency | None
    sales: Sales
    verdicts: Mapping[str, Verdict]

    @property
    def outcome(self) -> Outcome:
        """The worst outcome, which decides the colour and the exit code."""
        return min(map(outcome_at_rest, self.verdicts.values()), key=_WORST_FIRST.index)


@contextmanager
def stage(screen: Screen, *, orders: int, every: timedelta, rates_url: str | None = None) -> Iterator[tuple[str, Path]]:
    """A filled stack with its services up, removed afterwards with all that is in it.

    With `rates_url` its star also has the exchange rates of that service. Yields the URL with which the application writes, and
    a directory for logs. Inside, this process is an operator of that stack and no other. Raises: OperatorError where another
    demo runs.
    """
    home = default_home() / "demo"  # a directory of ours, since it is removed
    if Home(home).is_taken():
        raise OperatorError("another demo is running here; wait until it has ended, or set STARLIFT_HOME to another place")
    Stack.remove(home)
    try:
        settings = {} if rates_url is None else _settings_with_rates(rates_url, home)
        with Stack(home, settings=settings) as stack, disk_errors(home):
            start(stack, UpOptions(None, None, every), screen, orders=orders)
            with screen.doing("starting the three services"):
                start_services(stack, home)
            enter(service_environment(OPERATOR, stack.state, os.environ))
            yield stack.source_owner_url or "", home
    finally:
        Stack.remove(home)


def _settings_with_rates(url: str, home: Path) -> dict[str, str]:
    """The settings of services that ask for rates at `url`, on this machine; this process has the same contract."""
    contract = home / "contract.yaml"
    with writing(home):
        home.mkdir(parents=True)
        contract.write_text(contract_with_rates(url), encoding="utf-8")
    chosen = {f"{PREFIX}CONTRACT": str(contract), f"{PREFIX}SOURCE_NAME": SOURCE}
    os.environ.update(chosen)
    return chosen | {f"{PREFIX}API_ALLOW": "127.0.0.1"}


def run(screen: Screen, *, orders: int, lasting: timedelta) -> Result:
    """Fill a source, load it and exchange rates, write to it for a while, and prove the warehouse equal to both sources."""
    with serving_rates() as url, stage(screen, orders=orders, every=RUN_EVERY, rates_url=url) as (owner_url, home):
        return asyncio.run(_play(screen, owner_url, home, lasting))


async def _play(screen: Screen, owner_url: str, home: Path, lasting: timedelta) -> Result:
    settings = OperatorSettings()
    async with open_system(settings) as system, open_system(settings.by_source()[RATES]) as rates:
        with screen.doing("first load: everything, through three queues"):
            first, took = await _timed_run(system)
        async with system.warehouse.transaction(readonly=True) as connection:
            rows = await row_count(connection, system.contract, first.run)
        screen.say(f"first load: {rows:,} star rows in {took.total_seconds():.1f} s")
        with screen.doing("asking an HTTP API for exchange rates"):
            answered, rates_took = await _timed_run(rates)
            async with system.warehouse.transaction() as connection:  # as an analyst would, once the tables exist
                await connection.execute(f"SET LOCAL search_path = {quoted(system.contract.warehouse_schema)}")
                await connection.execute(_VIEW.read_text(encoding="utf-8"))
        asked = sum(extract.object.row_count for batch in answered.batches for extract in batch.data.extracts)
        screen.say(f"exchange rates: {asked:,} from an HTTP API in {rates_took.total_seconds():.1f} s")
        watch = Watch(system.contract, system.warehouse)
        await watch.look()
        began = datetime.now(UTC)
        log = home / "application.log"
        writer = start_writing(owner_url, per_second=WRITES_PER_SECOND, lasting=lasting, seed=SEED, log=log)
        with screen.doing("") as show:
            await _keep_up(system, watch, lambda: writer.exit_code() is None, show)
        with screen.doing("last run, and the proof"):
            verdicts = {SOURCE: await _prove(system), RATES: await _prove(rates)}
            await watch.look()
            latency = await read_latency(system.contract, system.database, watch, began)
            async with system.warehouse.transaction(readonly=True) as connection:
                runs = await run_count(connection, system.contract)
                (sold,) = await connection.fetch(_SALES)
    return Result(rows, took, runs, latency, Sales(*sold), verdicts)


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
        if outcome_at_rest(verdict) is not Outcome.PENDING or runs == LAST_RUNS:
            return verdict


def outcome_at_rest(verdict: Verdict) -> Outcome:
    """EQUAL only without rows in flight: the application has stopped, so the last run should have read every row."""
    return Outcome.PENDING if verdict.is_equal and verdict.in_flight else verdict.outcome


async def _keep_up(system: System, watch: Watch, is_writing: Callable[[], bool], show: Callable[[str], None]) -> None:
    """Ask for a run each second and look at the warehouse ten times as often, while the application writes."""
    before, began = len(watch.seen), time.monotonic()
    next_run = 0.0
    while is_writing():
        now = time.monotonic() - began
        if now >= next_run:
            await request_run(system, trigger=Trigger.SCHEDULE)
            next_run = now + RUN_EVERY.total_seconds()
        await watch.look()
        show(f"the application writes, {now:.0f} s; {len(watch.seen) - before:,} new row versions have arrived")
        await asyncio.sleep(LOOK_EVERY.total_seconds())
