"""What the services log, as lines for a person who watches them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from services.operator.wording import counted

Event = Mapping[str, Any]
RECEIVES_AGAIN_AFTER = timedelta(minutes=2)  # a service that can't receive logs so more often than this

# Only what a watcher wants to know; everything else stays in the log. A test holds these names against the services' code.
SENTENCES: Mapping[str, Callable[[Event], str]] = MappingProxyType(
    {
        "started": lambda event: f"up, reading {event['queue']}",
        "full_read": lambda event: f"run {event['run']} reads in full: {', '.join(event['reasons'])}",
        "run_completed": lambda event: (
            f"run {event['run']} read {_rows(event)} in {event['seconds']:g} s, {counted(event['batches'], 'batch', 'batches')}"
        ),
        "batch_loaded": lambda event: f"run {event['run']} loaded {_rows(event)}{_gone(event)}{_quarantined(event)}",
        "horizon_held_back": lambda event: (
            f"a transaction at the source stays open ({event['seconds']:,} s): each run reads again what has changed since"
        ),
        "new_columns": lambda event: (
            f"'{event['table']}' has columns that the contract does not name: {', '.join(event['columns'])}"
        ),
        "row_versions_unreadable": lambda event: (
            f"'{event['table']}' is read in full by every run, because xmin can't be read; {event['advice']}"
        ),
        "empty_table_not_compared": lambda event: (
            f"'{event['table']}' has no row; the warehouse keeps its rows; {event['advice']}"
        ),
        "delivery_refused": lambda event: f"refused {event['delivery']}; {event['advice']}",
        "delivery_unchanged": lambda event: f"{event['delivery']} has the same bytes as the delivery before it",
        "message_retried": lambda event: (
            f"attempt {event['attempt']} failed, next in {event['delay_s']:g} s: {event['reason']}"
        ),
        "message_dead_lettered": lambda event: f"dead letter: {event['error']}",
        "schema_not_ready": lambda event: f"can't load yet: {event['reason']}",
        "lock_awaited": lambda event: f"waiting for a lock that is held by {event['holder']}",
        "dependency_down": lambda event: f"waiting: {event['reason']}",
        "dependency_up": lambda event: f"{event['dependency']} answers again",
        "lease_lost": lambda event: f"lost the lease of message {event['message_id']}; another task has it",
        "foreign_keys_wait": lambda event: f"foreign keys come later: {event['reason']}",
        "receive_failed": lambda event: f"can't receive: {event['reason']}",
        "source_failed": lambda event: f"can't serve this source, and will try again: {event['error']}",
        "service_failed": lambda event: f"ended: {event['error']}",
    }
)


def _rows(event: Event) -> str:
    return counted(event["rows"], "row", "rows")


def _gone(event: Event) -> str:
    return f", {event['gone']:,} found deleted" if event["gone"] else ""


def _quarantined(event: Event) -> str:
    return f", {event['quarantined']:,} in quarantine" if event["quarantined"] else ""


def read_event(line: str) -> Event:
    """The event of a log line; empty if the line is none, as the first of a log that was cut."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def sentence(line: str) -> str | None:
    """A log line as `time service: what happened`; None where a watcher need not know, or the line is not an event."""
    event = read_event(line)
    try:
        happened = SENTENCES[event["event"]](event)
        source = f"{event['source']}: " if "source" in event else ""  # one of several
        return f"{event['timestamp'][11:19]}  {event['service']:<12} {source}{happened}"
    except (ValueError, KeyError, TypeError):
        return None


def waits_in(lines: Iterable[str], now: datetime | None = None) -> str | None:
    """What a service waits for, according to its last log lines."""
    down: dict[tuple[str, str], str] = {}
    unable: tuple[datetime, str] | None = None
    for event in map(read_event, lines):
        source = str(event.get("source", ""))  # one of several
        match event.get("event"):
            case "started":
                down, unable = {place: reason for place, reason in down.items() if place[0] != source}, None
            case "source_failed":
                down[source, "start"] = f"source {source}: {event['error']}"
            case "dependency_down":
                down[source, event["dependency"]] = f"source {source}: {event['reason']}" if source else event["reason"]
            case "dependency_up":
                down.pop((source, event["dependency"]), None)
            case "receive_failed":
                unable = datetime.fromisoformat(event["timestamp"]), event["reason"]
            case "message_done":
                unable = None
            case _:
                pass
    if unable is not None and (now or datetime.now(UTC)) - unable[0] < RECEIVES_AGAIN_AFTER:
        down.setdefault(("", "sqs"), unable[1])
    return "; ".join(down.values()) or None


class LogTail:
    """The lines that are appended to a log from now on, or from `byte_count` before its end."""

    def __init__(self, path: Path, byte_count: int = 0) -> None:
        self.path = path
        self._position = max(0, path.stat().st_size - byte_count) if path.exists() else 0

    def new_lines(self) -> Iterator[str]:
        """Each complete line since the last call. A log that was truncated is read from its start."""
        if not self.path.exists():
            return
        if self.path.stat().st_size < self._position:
            self._position = 0
        with self.path.open("rb") as log:
            log.seek(self._position)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                yield line.decode(errors="replace")
