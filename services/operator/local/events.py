"""What the services log, as lines for a person who watches them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from services.operator.wording import counted

Event = Mapping[str, Any]

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
            f"a transaction at the source does not end ({event['seconds']:,} s): each run reads again what has changed since"
        ),
        "new_columns": lambda event: (
            f"'{event['table']}' has columns that the contract does not know: {', '.join(event['columns'])}"
        ),
        "row_versions_unreadable": lambda event: (
            f"'{event['table']}' is read in full by every run, because xmin can't be read; {event['advice']}"
        ),
        "empty_table_not_compared": lambda event: (
            f"'{event['table']}' has no row; what the warehouse has of it stays; {event['advice']}"
        ),
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
        "service_failed": lambda event: f"ended: {event['error']}",
    }
)


def _rows(event: Event) -> str:
    return counted(event["rows"], "row", "rows")


def _gone(event: Event) -> str:
    return f", {event['gone']:,} found deleted" if event["gone"] else ""


def _quarantined(event: Event) -> str:
    return f", {event['quarantined']:,} in quarantine" if event["quarantined"] else ""


def sentence(line: str) -> str | None:
    """A log line as `time service: what happened`; None where a watcher need not know, or the line is not an event."""
    try:
        event = json.loads(line)
        told = SENTENCES[event["event"]](event)
        return f"{event['timestamp'][11:19]}  {event['service']:<12} {told}"
    except (ValueError, KeyError, TypeError):
        return None


def is_start(line: str) -> bool:
    """Whether a log line says that a service listens now."""
    try:
        return bool(json.loads(line)["event"] == "started")
    except (ValueError, KeyError, TypeError):
        return False


@dataclass
class LogTail:
    """The lines that are appended to a log behind `position`, in bytes; without one, from now on."""

    path: Path
    position: int = -1

    def __post_init__(self) -> None:
        if self.position < 0:
            self.position = self.path.stat().st_size if self.path.exists() else 0

    def new_lines(self) -> Iterator[str]:
        """Each complete line since the last call. A log that was cut begins anew."""
        if not self.path.exists():
            return
        if self.path.stat().st_size < self.position:
            self.position = 0
        with self.path.open("rb") as log:
            log.seek(self.position)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                self.position += len(line)
                yield line.decode(errors="replace")
