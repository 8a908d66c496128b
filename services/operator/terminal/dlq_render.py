"""Piles, letters, plans and operations as text for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from services.operator.dlq.audit import Audited
from services.operator.dlq.looking import Group, LetterView, Pile, Plan
from services.operator.wording import clock, counted, printable

_SHORT = 8  # digits of an id, enough to name it
REASONS_SHOWN = 20


def piles_text(piles: Sequence[Pile]) -> Iterator[str]:
    """Every queue, and why its letters failed, the most frequent failure first."""
    for pile in piles:
        since = f", the oldest failed {clock(pile.oldest)}" if pile.oldest else ""
        yield f"{pile.service}: {counted(pile.letters, 'dead letter', 'dead letters')}{since}"
        if pile.in_hand_elsewhere:
            yield (
                f"  about {pile.in_hand_elsewhere:,} more are held by another command, or by one that was killed: run it "
                "again in a minute"
            )
        for group in pile.groups:
            yield from _group_text(pile.service, group)
    if any(pile.letters for pile in piles):
        yield "Listing hides letters for a moment and raises their receive count; both are harmless."


def _group_text(service: str, group: Group) -> Iterator[str]:
    yield f"  {group.count:>6,} x {printable(group.error_type)}, fingerprint {group.fingerprint}"
    since = f"{clock(group.first_failed_at)} to {clock(group.last_failed_at)}"
    yield f"           {since}, such as {printable(group.letter[:_SHORT])}"
    yield f"           {printable(group.message)}"
    if group.problem:
        yield f"           {group.unsendable:,} can't go back: {printable(group.problem)}"
    elif group.unsendable:
        yield f"           {group.unsendable:,} can't go back; `starlift dlq replay {service}` says why"
    if group.loaded:
        command = f"starlift dlq discard {service} --loaded --reason …"
        yield f"           {group.loaded:,} are about batches that have been loaded since: `{command}`"


def letter_text(letter: LetterView) -> Iterator[str]:
    """Why it failed, what it says, what it refers to, and whether it could go back."""
    failure = letter.failure
    failed = "not recorded"
    if failure.attempts is not None:
        times = f"{clock(failure.first_failed_at)} to {clock(failure.last_failed_at)}"
        attempts = counted(failure.attempts, "attempt", "attempts")
        failed = f"{attempts}, {times}, in {printable(failure.service)} {printable(failure.version)}"
    again = f"once the cause is removed: `starlift dlq replay {letter.service} --id {letter.letter[:_SHORT]} --execute`"
    facts = {
        "letter": f"{letter.letter} of {letter.service}",
        "error": f"{failure.error_type} ({failure.reason}), fingerprint {failure.fingerprint}",
        "error text": failure.message,
        "failed": failed,
        "replayed": counted(failure.replays, "time", "times"),
        "snapshot": letter.snapshot_at or "none",
        "could go back": f"yes, {again}" if letter.problem is None else f"no: {letter.problem}",
    }
    if letter.loaded is not None:
        facts["loaded since"] = "yes, the letter can be discarded" if letter.loaded else "no"
    yield from (f"{name:>14}  {printable(text)}" for name, text in facts.items())
    for one in letter.objects:
        state = "there, as announced" if one.problem is None else one.problem
        yield f"{'object':>14}  {printable(f'{one.bucket}/{one.key}')}: {printable(state)}"
    # The body as it is; indented only if that changes nothing but white space, as in messages of ours.
    compact = json.dumps(letter.message, separators=(",", ":"), ensure_ascii=False)
    body = json.dumps(letter.message, indent=2, ensure_ascii=False) if compact == letter.body else letter.body
    yield "\n".join(map(printable, body.split("\n")))


def plans_text(plans: Sequence[Plan]) -> Iterator[str]:
    """What would go where, and what would stay, and why."""
    decisions = [decision for plan in plans for decision in plan.decisions]
    sent = Counter((one.service, one.type, one.error) for one in decisions if one.decision == "send")
    for (service, kind, error), count in sent.most_common():
        letters = counted(count, "letter", "letters")
        yield f"{letters} would go to {service}: {printable(kind)}, failed with {printable(error)}"
    stayed = Counter((one.service, one.because) for one in decisions if one.decision == "skip")
    example = {(one.service, one.because): one.letter[:_SHORT] for one in reversed(decisions)}
    for (service, because), count in stayed.most_common(REASONS_SHOWN):
        such_as = printable(example[service, because])
        letters = counted(count, "letter", "letters")
        yield f"{letters} of {service} would stay, such as {such_as}: {printable(because)}"
    if decisions:
        hint = "; --execute sends them" if sent else ""
        yield f"{counted(sent.total(), 'letter', 'letters')} of {len(decisions):,} would be sent{hint}"


def ended_text(operation: Audited) -> str:
    """How an operation ended, in one sentence."""
    return f"{operation.kind} of {operation.service} {_end(operation)} (operation {operation.id})"


def audit_text(operations: Sequence[Audited], *, is_one: bool) -> Iterator[str]:
    """Who did what, oldest first; of one operation also what became of each letter."""
    for operation in operations:
        asked = [
            json.dumps(operation.filter) if operation.filter else "",
            "" if operation.limit is None else f"--limit {operation.limit}",
            "--force" if operation.force else "",
        ]
        line = f"{operation.id}  {operation.kind} of {operation.service} by {operation.operator}: {_end(operation)}"
        yield printable("; ".join(one for one in (line, operation.reason, " ".join(filter(None, asked))) if one))
        if is_one and operation.ended and operation.ended.outcomes:
            for outcome, letters in operation.ended.outcomes.items():
                yield from (printable(f"  {letter}  {outcome}") for letter in letters)


def _end(operation: Audited) -> str:
    if operation.ended is None:
        return "not ended: it is running, or was killed; running the same command again continues with the remaining letters"
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(operation.ended.counts.items())) or "no letters"
    detail = f"; {operation.ended.detail}" if operation.ended.detail else ""
    return f"{operation.ended.end}: {counts}{detail}"
