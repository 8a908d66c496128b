"""The status for people, and how numbers, times and foreign texts are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.operator.ingest import Waiting
from services.operator.progress import Progress
from services.operator.proof.verdict import Outcome
from services.operator.row_counts import RowCount
from services.operator.status import Service, Status

MINUTE_S = 60
REASONS_SHOWN = 5
LINE_EVERY_S = 5.0  # where there is no terminal to show a spinner
COMPLAINT = "starlift: "  # how the one sentence begins that ends a command


@contextmanager
def waiting_shown(console: Console, services: Callable[[], Mapping[str, Service]]) -> Iterator[Callable[[Waiting], None]]:
    """Show what the command and the `services` wait for: beside a spinner, or without a terminal a line per change."""
    line, at, because = "", time.monotonic(), ""
    with console.status("waiting for the run") as spinner:

        def show(waiting: Waiting) -> None:
            nonlocal line, at, because
            is_time = time.monotonic() - at >= LINE_EVERY_S
            if is_time:
                because = "".join(f"; {name} waits: {one.waits_for}" for name, one in services().items() if one.waits_for)
                at = time.monotonic()
            text = f"{waiting.sentence}{because}"
            spinner.update(Text(text))
            if is_time and not console.is_terminal and text != line:
                line = text
                console.print(f"waiting: {text}", highlight=False, markup=False, soft_wrap=True)

        yield show


def show_status(console: Console, status: Status) -> None:
    """Services, queues, rows, freshness, and in the end whether it is healthy."""
    for table in (_services_table(status), _queues_table(status), _rows_table(status)):
        if table is not None:
            console.print(table)
    if any(depth.visible + depth.in_flight for depth in status.dead_letters.values()):
        _warn(console, "`starlift dlq list` prints why the messages failed.")
    if status.progress is not None:
        console.print(_freshness(status, status.progress), soft_wrap=True)  # one line, also through a pipe
    if "proof" not in status.silent:
        console.print(_proved(status), soft_wrap=True)
    for sentence in _warnings(status):
        _warn(console, sentence)
    if status.reach is not None:
        console.print(reach_sentence(status.reach), highlight=False, markup=False, soft_wrap=True)
    if status.services is None:
        console.print("Services are shown for a local stack only; on AWS ask ECS.", highlight=False, soft_wrap=True)
    for problem in status.problems:
        console.print(Text(f"not healthy: {problem}", "bold red"), soft_wrap=True)


def reach_sentence(command: str | None) -> str:
    """The command that opens the star."""
    return f"The star: {command}"


def _services_table(status: Status) -> Table | None:
    if status.services is None:
        return None
    table = Table("service", "alive since", "restarts", "waits for", title="Services", title_justify="left")
    for name, service in status.services.items():
        since = clock(service.alive_since) if service.alive_since else "[bold red]not running[/]"
        table.add_row(name, since, f"{service.restarts:,}", Text(printable(service.waits_for or "")))
    return table


def _queues_table(status: Status) -> Table | None:
    if not status.queues:
        return None
    table = Table("service", "waiting", "in flight", "delayed", "dead letters", title="Queues", title_justify="left")
    for name, depth in status.queues.items():
        dead = status.dead_letters[name]
        count = dead.visible + dead.in_flight
        shown = f"[bold red]{count}[/]" if count else "0"
        table.add_row(name, str(depth.visible), str(depth.in_flight), str(depth.delayed), shown)
    return table


def _rows_table(status: Status) -> Table | None:
    if not status.rows:
        return None
    table = Table("table", "rows", "fresh as of", title="Warehouse", title_justify="left")
    table.columns[1].justify = "right"
    for name, count in status.rows.items():
        fresh = status.fresh.get(name)
        table.add_row(Text(name), _rows_shown(count), clock(fresh) if fresh else "")
    return table


def _rows_shown(count: RowCount) -> str:
    if not count.exists:
        return "not created yet"
    if count.rows is None:
        return "locked or large, never analysed"
    return f"about {count.rows:,}" if count.is_estimate else f"{count.rows:,}"


def _warnings(status: Status) -> Iterator[str]:
    if (held_back_s := status.held_back_s or 0) > MINUTE_S:
        since = f"A transaction at the source has been open for {held_back_s:,.0f} s"
        yield f"{since}: every run reads again what has changed since."
    checkpoint = status.progress.checkpoint if status.progress else None
    for name, columns in (checkpoint.new_columns if checkpoint else {}).items():
        known = f"the contract does not know {counted(len(columns), 'column', 'columns')} of source table '{name}'"
        yield f"{known}: {', '.join(columns)}"
    if status.quarantined:
        yield f"{counted(status.quarantined, 'row is', 'rows are')} in quarantine: `starlift quarantine list` prints why"
    if status.progress is not None and status.progress.missing:
        missing = counted(len(status.progress.missing), "batch is", "batches are")
        yield f"{missing} not loaded yet, {status.progress.overdue:,} of them overdue"


def _warn(console: Console, sentence: str) -> None:
    console.print(Text(sentence, "yellow"), soft_wrap=True)


def _freshness(status: Status, progress: Progress) -> str:
    if progress.checkpoint is None:
        return "No run has completed yet."
    run = f"Last run {progress.checkpoint.run} at {clock(progress.checkpoint.started_at)}"
    if progress.fresh_as_of is None:
        return f"{run}; nothing is loaded yet."
    behind = (status.at - progress.fresh_as_of).total_seconds()
    return f"{run}; the warehouse shows the source as of {clock(progress.fresh_as_of)}, {behind:.1f} s ago."


def _proved(status: Status) -> Text:
    """What the last proof found, and why there is no newer one. As a Text: a reason may look like markup."""
    proof, failure = status.proof, status.proof_failure
    if proof is None:
        said = Text("Never proved yet: `starlift verify` compares everything with the source.")
    elif proof.outcome is Outcome.DIFFERENT:
        rows = f"{proof.different:,} of {proof.rows:,} rows; `starlift verify` names them."
        said = Text.assemble((f"Found different {_ago(status, proof.taken_at)}", "bold red"), f": {rows}")
    elif proof.outcome is Outcome.PENDING:
        reasons = "; ".join(reasons_in_words(proof.reasons))
        said = Text.assemble((f"Pending {_ago(status, proof.taken_at)}", "bold yellow"), f": {reasons}.")
    else:
        words = f"{proof.rows:,} rows, {proof.in_flight:,} in flight, {proof.quarantined:,} in quarantine."
        said = Text(f"Proved equal {_ago(status, proof.taken_at)}: {words}")
    if failure is not None:
        said.append(f"\nThe last proof failed {_ago(status, failure.failed_at)}: {failure.reason}", "bold red")
    elif status.is_proof_old:
        said.append(" No proof since: check that the proof schedule is running.", "yellow")
    return said


def _ago(status: Status, moment: datetime) -> str:
    seconds = (status.at - moment).total_seconds()
    return f"{seconds:.0f} s ago" if seconds < MINUTE_S * 2 else f"{seconds / MINUTE_S:,.0f} min ago"


def reasons_in_words(reasons: Mapping[str, int]) -> Iterator[str]:
    """Each reason why rows are stuck with the number of rows, up to REASONS_SHOWN reasons."""
    for reason, count in list(reasons.items())[:REASONS_SHOWN]:
        yield f"{counted(count, 'row', 'rows')}: {reason}" if count else reason
    if len(reasons) > REASONS_SHOWN:
        yield f"{len(reasons) - REASONS_SHOWN:,} more reasons; `starlift verify --json` lists them all"


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def clock(moment: datetime) -> str:
    """A time of UTC, to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def printable(value: object) -> str:
    """A value as it may reach a terminal: what would steer it is spelled."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(value))
