"""What rows wait for (a run, a batch, a comparison of keys, a person), and which transactions decide it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from services.operator.progress import OVERDUE, DeadMessage, Gap, Progress
from services.operator.proof.expected import CausesByAge
from services.operator.proof.row_comparison import Cause, Wait
from shared.ledger import KeyComparison

MINUTE = timedelta(minutes=1)
COMPARISON_OVERDUE = timedelta(minutes=15)  # ten runs on the shipped schedule compare keys every ten minutes
BATCHES_NAMED = 3


def causes_by_age(progress: Progress, tables: Collection[str], run: Cause, gaps: Sequence[Cause]) -> CausesByAge:
    """Map the transactions that wrote rows of the source tables `tables` to what they wait for: the next run, or a gap.

    A row version with a horizon between those of two runs is read by the later one, and a row is read again with everything
    it is joined from whenever any of it changes. So only the youngest of its transactions counts: once the run that read
    that transaction is loaded, so is the row, whatever earlier runs lack. Changes that leave no transaction id (all rows of a
    table that a run had to read in full) count as older than any transaction.
    """
    manifests = [gap.manifest for gap in progress.gaps] + [one for one in (progress.consistent_through,) if one is not None]
    ended = [(one.run, one.snapshot.horizon) for one in (*manifests, progress.checkpoint) if one is not None]
    if not ended:
        return CausesByAge(beyond=run)
    _, oldest = max(ended)
    steps: list[tuple[int, Cause | None]] = [(oldest, run)]
    for gap, cause in zip(reversed(progress.gaps), reversed(gaps), strict=True):
        if gap.tables.isdisjoint(tables):
            continue
        if gap.manifest.snapshot.horizon < oldest:
            oldest = gap.manifest.snapshot.horizon
            steps.append((oldest, None))
        if gap.since is None or not gap.manifest.redefined.isdisjoint(tables):
            return CausesByAge(tuple(steps), beyond=cause)
        if gap.since < oldest:
            oldest = gap.since
            steps.append((oldest, cause))
    return CausesByAge(tuple(steps))


def next_run_cause(progress: Progress, taken_at: datetime) -> Cause:
    """The cause for rows written after the last run began, or kept above the horizon by an open transaction."""
    last = progress.checkpoint
    if last is None and progress.consistent_through is None and not progress.gaps:
        return Cause(Wait.RUN, "no run has completed yet: `starlift ingest --wait` starts one")
    snapshot = last or progress.consistent_through or progress.gaps[-1].manifest
    if (silence := taken_at - snapshot.snapshot.taken_at) > OVERDUE:
        advice = "check that ingestion is running (`starlift status`), then `starlift ingest --wait`"
        return Cause(Wait.RUN, f"no run has read the source for {_minutes(silence)} min: {advice}")
    if last is not None and last.held_back_since is not None and (age := taken_at - last.held_back_since) > OVERDUE:
        advice = "every run reads again what has changed since; end it, or verify with a longer --settle"
        return Cause(Wait.RUN, f"a transaction at the source has been open for {_minutes(age)} min: {advice}")
    return Cause(Wait.RUN)


def versionless_cause(tables: Collection[str]) -> Cause:
    """The cause for rows without transaction ids, or none that may be read: only a later run shows whether they are new."""
    named = ", ".join(f"'{table}'" for table in sorted(tables))
    advice = "verify with a longer --settle, or, if it is a table, grant SELECT on all of it"
    reason = f"new rows of {named} can't be recognized without their transaction ids: {advice}"
    return Cause(Wait.RUN, reason, is_assumed=True)


def gap_cause(gap: Gap, dead: Mapping[UUID, DeadMessage], *, is_first: bool) -> Cause:
    """The cause for rows in a batch that is not loaded. `is_first`: nothing was loaded before its run."""
    run = f"run {gap.manifest.run}"
    for batch in gap.missing:
        if (letter := dead.get(batch.data.batch_id)) is not None:
            return Cause(Wait.BATCH, letter.sentence)
    if gap.is_overdue:
        named = ", ".join(str(batch.data.batch_id) for batch in gap.missing[:BATCHES_NAMED])
        more = f" and {len(gap.missing) - BATCHES_NAMED:,} more" if len(gap.missing) > BATCHES_NAMED else ""
        advice = "`starlift dlq list` shows whether it is a dead letter, `starlift resend` sends it again"
        return Cause(Wait.BATCH, f"{run} is overdue, batch {named}{more} is not loaded: {advice}")
    return Cause(Wait.BATCH, f"the first load, {run}, is not complete yet" if is_first else "")


def comparison_cause(last: KeyComparison | None, taken_at: datetime, dead: DeadMessage | None = None) -> Cause:
    """The cause for rows deleted at the source, or whose partner was: a run that compares keys finds them, and asks.

    `dead` is a dead letter that keeps one of its questions open.
    """
    if dead is not None:
        return Cause(Wait.COMPARISON, dead.sentence)
    if last is not None and last.unanswered_for is not None and last.unanswered_for > OVERDUE:
        advice = "check that ingestion is running (`starlift status`); `starlift ingest --compare-keys --wait` asks again"
        return Cause(Wait.COMPARISON, f"ingestion has not answered for {_minutes(last.unanswered_for)} min: {advice}")
    if last is None:
        return Cause(Wait.COMPARISON, "keys were never compared: `starlift ingest --compare-keys --wait` does it")
    if (age := taken_at - last.found_at) <= COMPARISON_OVERDUE:
        return Cause(Wait.COMPARISON)
    if not last.is_whole:
        advice = "load the missing batches that `starlift status` shows, or go on now: `starlift ingest --compare-keys`"
        parts = f"too many keys are in question, so the comparison that began {_minutes(age)} min ago is made in parts"
        return Cause(Wait.COMPARISON, f"{parts}: {advice}")
    advice = "`starlift ingest --compare-keys --wait` does it now"
    return Cause(
        Wait.COMPARISON, f"keys were last compared {_minutes(age)} min ago, and rows have been deleted since: {advice}"
    )


def empty_table_cause(source_table: str) -> Cause:
    """The cause for rows whose source table was empty when its keys should have been compared."""
    advice = "if its rows were deleted, `starlift ingest --compare-keys --believe-empty` marks them"
    return Cause(Wait.EMPTY, f"source table '{source_table}' is empty, which may be a mistake: {advice}")


def lost_manifest_cause(run: int, key: str) -> Cause:
    """The cause for rows of a loaded run whose manifest is missing, which says what the run delivered."""
    advice = "restore it, or deliver the same again, or a whole snapshot"
    return Cause(Wait.DELIVERY, f"what run {run} delivered can't be proved without its manifest '{key}': {advice}")


def lost_key_cause(table: str, columns: Collection[str]) -> Cause:
    """The cause for a star table that any row may be in twice; its current view would hide the second one of a fact."""
    advice = "loading creates it again when it starts, or reports the rows that prevent it"
    return Cause(Wait.KEY, f"'{table}' has no unique key on ({', '.join(columns)}), so it may contain rows twice: {advice}")


def missing_keys_cause() -> Cause:
    """The cause for a star whose first load is copied into tables without keys."""
    return Cause(Wait.KEY, "the first load has not ended: loading builds the keys of the star's tables at its end")


def _minutes(span: timedelta) -> str:
    return f"{span / MINUTE:,.0f}"
