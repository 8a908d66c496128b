"""Piles, letters, plans and operations: as tables for people, as JSON lines for scripts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from services.operator.dlq.actions import Decision
from services.operator.dlq.journal import Journal
from services.operator.dlq.letters import Letter
from services.operator.dlq.operation import RESUMABLE, Ended, Kind, Operation, Step
from services.operator.dlq.survey import Group, Pile, Reference
from services.operator.render import counted

_SHORT = 8  # of an id, enough to name it
REASONS_SHOWN = 20
_UNENDED = {
    **dict.fromkeys(set(Kind) - RESUMABLE, "it runs, or was interrupted"),
    Kind.UNKNOWN: "of a newer build, which can go on with it",
}
DONE_WITH = {Kind.REPLAY: "replayed", Kind.EDIT: "edited", Kind.DISCARD: "discarded"}


def json_line(value: Mapping[str, Any]) -> str:
    """One document, one line."""
    return json.dumps(value, default=str)


def pile_as_json(pile: Pile) -> dict[str, Any]:
    """A dead-letter queue with its groups."""
    return {
        "service": pile.service,
        "letters": pile.seen,
        "in_hand_elsewhere": pile.elsewhere,
        "oldest": pile.oldest.isoformat() if pile.oldest else None,
        "groups": [
            asdict(group)
            | {"first_failed_at": group.first_failed_at.isoformat(), "last_failed_at": group.last_failed_at.isoformat()}
            for group in pile.groups.values()
        ],
    }


def show_piles(console: Console, piles: Sequence[Pile]) -> None:
    """Every queue, and what died in it, the most frequent first."""
    for pile in piles:
        since = f", the oldest failed {_clock(pile.oldest)}" if pile.oldest else ""
        count = counted(pile.seen, "dead letter", "dead letters")
        console.print(f"[bold]{pile.service}[/]: {count}{since}", highlight=False, soft_wrap=True)
        if pile.elsewhere:
            text = f"{pile.elsewhere:,} more are in somebody's hands (another look, or a replay that holds them): look again"
            console.print(text, style="yellow", highlight=False, soft_wrap=True)
        for group in sorted(pile.groups.values(), key=lambda group: -group.count):
            _show_group(console, group)
    if any(pile.seen for pile in piles):
        console.print(
            "Looking hides letters for a moment and raises their receive count; both are harmless.", style="dim", soft_wrap=True
        )


def _show_group(console: Console, group: Group) -> None:
    invalid = f", {group.unsendable:,} of them can't go back" if group.unsendable else ""
    when = f"{_clock(group.first_failed_at)} to {_clock(group.last_failed_at)}, such as {group.letter[:_SHORT]}"
    console.print(
        _text(f"  {group.count:>6,} x {group.error_type}, fingerprint {group.fingerprint}{invalid}", "bold"), soft_wrap=True
    )
    console.print(_text(f"           {when}"), soft_wrap=True)
    console.print(_text(f"           {group.message}"), soft_wrap=True)


def letter_as_json(letter: Letter, references: Sequence[Reference] = ()) -> dict[str, Any]:
    """A letter with all that is known of it. What is no JSON stands as text."""
    return {
        "letter": letter.id,
        "service": letter.service,
        "message": letter.document if letter.document is not None else letter.delivery.body,
        "problem": letter.problem,
        "failure": letter.failure.model_dump(mode="json"),
        "sent_at": letter.delivery.sent_at.isoformat(),
        "receive_count": letter.delivery.receive_count,
        "attributes": dict(letter.delivery.attributes),
        "objects": [{**one.ref.model_dump(), "problem": one.problem} for one in references],
    }


def show_letter(console: Console, letter: Letter, references: Sequence[Reference]) -> None:
    """Why it died, what it says, what it refers to, and whether it could go back."""
    failure = letter.failure
    facts = {
        "letter": f"{letter.id} of {letter.service}",
        "died of": f"{failure.error_type} ({failure.reason}), fingerprint {failure.fingerprint}",
        "it said": failure.message,
        "failed": f"{counted(failure.attempts or 1, 'attempt', 'attempts')}, {_clock(failure.first_failed_at)} to "
        f"{_clock(failure.last_failed_at)}, in {failure.service} {failure.version}",
        "replayed": counted(failure.replays, "time", "times"),
        "snapshot": letter.snapshot_at or "none",
        "could go back": "yes" if letter.problem is None else f"no: {letter.problem}",
    }
    for name, text in facts.items():
        console.print(_text(f"{name:>14}  {text}"), soft_wrap=True)
    for one in references:
        state = "there, as announced" if one.problem is None else one.problem
        console.print(_text(f"{'object':>14}  {one.ref.bucket}/{one.ref.key}: {state}"), soft_wrap=True)
    if letter.document is None:
        console.print(_text(letter.delivery.body), soft_wrap=True)
    else:
        document = _text(json.dumps(letter.document, indent=2, ensure_ascii=False))
        console.print(JSONHighlighter()(document), soft_wrap=True)


def decision_as_json(decision: Decision) -> dict[str, Any]:
    """What a replay would do with one letter."""
    letter = decision.letter
    return {
        "letter": letter.id,
        "service": letter.service,
        "event": letter.event_id,
        "type": letter.type,
        "run": letter.run,
        "replays": letter.failure.replays,
        "decision": "send" if decision.skipped_because is None else "skip",
        "because": decision.skipped_because,
    }


class PlanTable:
    """Counts decisions as they come; memory does not grow with the letters."""

    def __init__(self) -> None:
        self.sent: Counter[tuple[str, str, str]] = Counter()
        self.skipped: Counter[tuple[str, str]] = Counter()
        self.example: dict[tuple[str, str], str] = {}

    @property
    def count(self) -> int:
        """Letters so far."""
        return self.sent.total() + self.skipped.total()

    def add(self, decision: Decision) -> None:
        """One more."""
        letter = decision.letter
        if decision.skipped_because is None:
            self.sent[letter.service, letter.type or "", letter.failure.error_type] += 1
        else:
            key = (letter.service, decision.skipped_because)
            self.skipped[key] += 1
            self.example.setdefault(key, letter.id)

    def show(self, console: Console) -> None:
        """What would go where, and what would not, and why."""
        table = Table("to", "letters", "message", "died of", title="Would be sent", title_justify="left")
        for (service, kind, error), count in self.sent.most_common():
            table.add_row(service, f"{count:,}", kind, _text(error))
        if self.sent:
            console.print(table)
        for (service, reason), count in self.skipped.most_common(REASONS_SHOWN):
            letter = self.example[service, reason][:_SHORT]
            line = f"{counted(count, 'letter', 'letters')} of {service} would stay, such as {letter}: {reason}"
            console.print(_text(line, "yellow"), soft_wrap=True)


def operation_as_json(operation: Operation, ended: Ended | None) -> dict[str, Any]:
    """Who did what, when, why, and how it ended."""
    return {
        **operation.model_dump(mode="json", exclude={"filter", "body"}),
        "filter": operation.filter.model_dump(mode="json", exclude_defaults=True),
        "ended": None if ended is None else ended.model_dump(mode="json"),
    }


def show_operations(console: Console, found: Sequence[tuple[Operation, Ended | None]]) -> None:
    """The audit, oldest first."""
    for operation, ended in found:
        unended = _UNENDED.get(operation.kind, "it runs, or `starlift dlq resume` goes on")
        how = f"{ended.end} ({_counts(operation, ended)})" if ended else f"not ended: {unended}"
        line = f"{operation.id}  {operation.kind} of {operation.service} by {operation.operator}: {how}"
        told = [line, operation.reason, _choice(operation)]
        console.print(_text("; ".join(one for one in told if one)), soft_wrap=True)


def _choice(operation: Operation) -> str:
    """What was asked of which letters to be chosen, where it was not all."""
    chosen = operation.filter.model_dump(mode="json", exclude_defaults=True)
    asked = [
        json.dumps(chosen) if chosen else "",
        "" if operation.limit is None else f"--limit {operation.limit}",
        "--force" if operation.force else "",
    ]
    return " ".join(one for one in asked if one)


def journal_as_json(journal: Journal) -> Iterator[dict[str, Any]]:
    """Who went on with an operation, and the last step of each letter."""
    for one in (*journal.resumptions, *journal.lines.values()):
        yield {"operation": journal.operation.id, **one.model_dump(mode="json")}


def show_journal(console: Console, journal: Journal) -> None:
    """Who went on with an operation, and every letter of it, with its last step."""
    for one in journal.resumptions:
        why = f"; {one.reason}" if one.reason else ""
        console.print(_text(f"  {_clock(one.at)}  {one.operator} went on{why}"), soft_wrap=True)
    for letter, line in journal.lines.items():
        console.print(_text(f"  {letter}  {line.step:<8}  {_clock(line.at)}  {line.detail}".rstrip()), soft_wrap=True)


def ended_sentence(operation: Operation, ended: Ended) -> str:
    """How an operation ended, in one sentence."""
    detail = f"; {ended.detail}" if ended.detail else ""
    counts = _counts(operation, ended)
    return f"{operation.kind} of {operation.service} {ended.end}: {counts}{detail} (operation {operation.id})"


def _counts(operation: Operation, ended: Ended) -> str:
    """Letters by their last step; those that have left the queue as what was meant to be done with them."""
    named = {DONE_WITH.get(operation.kind, step) if step == Step.DELETED else step: n for step, n in ended.counts.items()}
    return ", ".join(f"{count:,} {name}" for name, count in sorted(named.items())) or "no letters"


def _text(text: str, style: str = "") -> Text:
    """What others have written must not steer a terminal, nor fail to be printed: half a surrogate pair, say."""
    shown = (one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)
    return Text("".join(shown), style)


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
