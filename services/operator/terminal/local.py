"""`starlift up`, `down` and `demo`, which need the extra `local`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from contracts.proofs import Outcome
from infra.local.stack import Stack
from infra.local.state import default_home
from services.operator.contract.urls import chosen_url, up_variable, url_variable
from services.operator.errors import UsageError
from services.operator.local import demo as demonstration
from services.operator.local import late_commits
from services.operator.local.late_commits import QUICK, SLOW, LateCommits
from services.operator.local.up import UpOptions, up_detached, up_in_foreground
from services.operator.locate import is_described
from services.operator.terminal.harness import ExitCode
from services.operator.terminal.plan import CONTRACT_VARIABLE, ContractName
from services.operator.terminal.verify import COLOURS, verdict_sentence
from shared.contract_file import located

SOURCE_HELP = "Your own source, read-only, without a password: postgresql://user@host/database; default: STARLIFT_SOURCE_URL."
WAREHOUSE_HELP = "Your own warehouse, without a password; default: STARLIFT_WAREHOUSE_URL."
EXIT_CODES = {Outcome.EQUAL: ExitCode.DONE, Outcome.DIFFERENT: ExitCode.DIFFERENT, Outcome.PENDING: ExitCode.NOT_LOADED}

app = typer.Typer()

Port = Annotated[int | None, typer.Option(min=1024, max=65535, help="Port of LocalStack on 127.0.0.1; default: a free one.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="Seconds between two runs of a database.")]


class ConsoleScreen:
    """The terminal, for commands that take a while."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """Print one line that stays."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def doing(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show a spinner with a text that can be replaced."""
        with self.console.status(Text(what)) as shown:
            yield lambda text: shown.update(Text(text))


@app.command()
def up(
    contract: ContractName = None,
    source_url: Annotated[str | None, typer.Option(help=SOURCE_HELP)] = None,
    warehouse_url: Annotated[str | None, typer.Option(help=WAREHOUSE_HELP)] = None,
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything runs; `starlift down` stops it.")] = False,
    every: Seconds = 2.0,
    prove_every: Annotated[float, typer.Option(min=1, help="Seconds between two proofs.")] = 60.0,
    localstack_port: Port = None,
) -> None:
    """Start the local stack and the three services; one line per event until Ctrl-C.

    Without URLs it starts embedded databases, and a simulator that writes to the source as an application would. Passwords
    are given as to `starlift plan`. Whatever that command would call a problem is reported before anything starts, with exit
    code 2.
    """
    if is_described():
        _refuse_urls_of_another(source=source_url, warehouse=warehouse_url)
    if name := contract or os.environ.get(CONTRACT_VARIABLE):
        os.environ[CONTRACT_VARIABLE] = located(name)  # which the stack's state records
    source, warehouse = chosen_url("source", source_url), chosen_url("warehouse", warehouse_url)
    options = UpOptions(source, warehouse, timedelta(seconds=every), localstack_port, timedelta(seconds=prove_every))
    (up_detached if detach else up_in_foreground)(options, ConsoleScreen(Console()))


def _refuse_urls_of_another(**options: str | None) -> None:
    """Raises: UsageError if `up` would work on the databases of a deployed Starlift, which the environment describes."""
    for name, option in options.items():
        if option is None and not os.environ.get(up_variable(name)) and os.environ.get(url_variable(name)):
            raise UsageError(
                f"the environment describes another Starlift (STARLIFT_INGESTION_QUEUE_URL), to which {url_variable(name)} "
                f"belongs; unset both, or pass --{name}-url"
            )


@app.command()
def down() -> None:
    """Stop what `starlift up` started. Databases keep their data, queues and buckets do not."""
    typer.echo("stopped" if Stack.stop_found() else f"nothing is running in {default_home()}")


@app.command()
def demo(
    *,
    orders: Annotated[int, typer.Option(min=1, help="Sales orders in the source to begin with.")] = 11_187,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds for which the application writes.")] = 20.0,
    late_commit: Annotated[
        bool, typer.Option("--late-commit", help="Show instead, side by side, which rows a watermark on last_updated loses.")
    ] = False,
) -> None:
    """Fill a source, load it, follow its changes, prove the star equal; then remove everything.

    Exit code 0 if the warehouse equals the source.
    """
    screen = ConsoleScreen(Console())
    if late_commit:
        found = late_commits.run(screen)
        screen.console.print(late_commits_panel(found))
        screen.say(late_commits_sentence(found))
        raise typer.Exit(ExitCode.DONE if found.is_complete else ExitCode.DIFFERENT)
    result = demonstration.run(screen, orders=orders, lasting=timedelta(seconds=seconds))
    screen.console.print(demo_panel(result))
    raise typer.Exit(EXIT_CODES[result.outcome])


def demo_panel(result: demonstration.Result) -> Panel:
    """The page at the end of the demo."""
    rows = Table("table", "rows in the source", "rows found equal", box=None, pad_edge=False)
    for column in rows.columns[1:]:
        column.justify = "right"
    seen = set[str]()  # both sources have the calendar
    for table in (table for verdict in result.verdicts.values() for table in verdict.tables):
        if table.table in seen:
            continue
        seen.add(table.table)
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
    colour = COLOURS[result.outcome]
    facts.add_row("sales in GBP", sales_sentence(result.sales))
    still = f"[bold {COLOURS[Outcome.PENDING]}]PENDING[/]: rows are still in flight after {demonstration.LAST_RUNS} runs"
    for source, verdict in result.verdicts.items():
        is_at_rest = demonstration.outcome_at_rest(verdict) is verdict.outcome
        facts.add_row(f"verdict of {source}", verdict_sentence(verdict) if is_at_rest else still)
    return Panel(Group(rows, "", facts), title="Starlift", border_style=colour, expand=False)


def sales_sentence(sales: demonstration.Sales) -> str:
    """What the sales are worth in one currency, and how many have no rate."""
    aside = f", and {sales.without_rate:,} more without a rate" if sales.without_rate else ""
    return f"£{sales.amount:,.2f} for {sales.count - sales.without_rate:,} sales, at each day's rate{aside}"


def late_commits_panel(found: LateCommits) -> Panel:
    """The page at the end of the demo of late commits."""
    steps = Table("at the source", "last_updated > watermark reads", "Starlift reads", box=None, pad_edge=False)
    rows = Table("row", "copied by the watermark", "in the warehouse", box=None, pad_edge=False)
    for step in found.steps:
        steps.add_row(step.event, f"{step.polled:,}", f"{step.read:,}")
    for name in (*QUICK, *SLOW):
        rows.add_row(
            name, *("[green]yes[/]" if name in names else "[bold red]LOST[/]" for names in (found.copied, found.loaded))
        )
    return Panel(Group(steps, "", rows), title="Late commits", expand=False)


def late_commits_sentence(found: LateCommits) -> str:
    """How many of the late rows each of the two lost."""
    copied, loaded = (sum(name not in names for name in SLOW) for names in (found.copied, found.loaded))
    return f"Of 3 rows that were committed late, the watermark lost {copied}, for good; Starlift {loaded}."
