"""The status of a Starlift: what its parts answered, what needs a person, and the report made of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from contracts.contract import Contract
from contracts.proofs import ProofFailure, ProofRecord
from contracts.state import Checkpoint
from contracts.tables import Calendar, WarehouseTable
from services.operator.files import Files, problems_of_files
from services.operator.progress import OVERDUE, Progress
from services.operator.wording import counted
from shared.ledger import KeyComparison
from shared.lock_waits import LockWait
from shared.queue import Depth

PROOF_IS_OLD = timedelta(hours=1)  # as the alarm on AWS: infra/topology.json, unproved_minutes
STALE = timedelta(minutes=30)  # likewise: silent_minutes


class Service(BaseModel, frozen=True):
    """A service of the local stack, as its process and its log show it."""

    alive_since: AwareDatetime | None = None  # when its process started; None while it does not run
    restarts: int = 0  # since `starlift up`
    waits_for: str | None = None  # the dependency that is down, by the service's log; None while it waits for nothing


@dataclass(frozen=True, slots=True)
class RowCount:
    """Rows of a table, deleted ones included; None if the table does not exist (`exists`), or is locked and has no estimate."""

    rows: int | None
    exists: bool = True
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What the parts answered. A part that did not is empty or None, and named in `silent` or in `late`."""

    at: datetime
    queues: Mapping[str, Depth] = field(default_factory=dict)
    dead_letters: Mapping[str, Depth] = field(default_factory=dict)
    progress: Progress | None = None
    proof: ProofRecord | None = None
    proof_failure: ProofFailure | None = None
    rows: Mapping[str, RowCount] = field(default_factory=dict)
    fresh: Mapping[str, datetime | None] = field(default_factory=dict)
    quarantined: int | None = None
    comparisons: Mapping[str, KeyComparison] = field(default_factory=dict)
    lock_waits: tuple[LockWait, ...] = ()
    files: Files | None = None
    is_delivered: bool = False  # whether the source has data sets, and no database
    services: Mapping[str, Service] | None = None
    psql: str | None = None
    silent: Mapping[str, str] = field(default_factory=dict)
    late: Mapping[str, str] = field(default_factory=dict)


class StatusReport(BaseModel, frozen=True):
    """One look at everything. What is not known, since a part did not answer, is null or empty."""

    at: AwareDatetime  # when the last answer was there, by this machine's clock
    healthy: bool | None  # False if anything needs a person; None if a part was late and no other part has a problem
    problems: tuple[str, ...]  # what needs a person, one clause each
    silent: dict[str, str]  # the reason why there is no answer, by part: it is down, or was late
    late: tuple[str, ...]  # those of `silent` that did not answer in time, which says nothing about their health
    services: dict[str, Service] | None  # by name; None on AWS, where only ECS knows them
    queues: dict[str, Depth]  # by the service that consumes the queue
    dead_letters: dict[str, int]  # how many, by service
    last_run: int | None  # the last completed run, by the source's checkpoint
    last_run_at: AwareDatetime | None  # when it started, by ingestion's clock
    consistent_through: int | None  # the last run up to which every batch is loaded
    missing_batches: tuple[UUID, ...] | None  # announced and not loaded
    overdue_batches: int | None  # how many of them were announced long ago: they are lost, or dead letters
    superseded_batches: tuple[UUID, ...] | None  # never loaded, and no longer needed since a later full run is
    fresh_as_of: AwareDatetime | None  # every change committed by then is in the warehouse, by the source's clock
    behind_seconds: float | None  # since then
    quarantined: int | None  # rows in quarantine now
    # The oldest snapshot, over the tables, whose keys are compared with the star's, by the source's clock; None: none is.
    keys_compared_as_of: AwareDatetime | None
    # Rows that were gone by then are marked if no table is in the next list, and no question is open.
    tables_in_comparison: tuple[str, ...]  # batches are awaited, a loader is at work, or the next comparisons go on with it
    open_questions: int  # about rows that may be gone; ingestion answers within its next runs
    oldest_question_seconds: float | None  # how long ago the oldest of them was asked; None if none is open
    proved: ProofRecord | None  # the last proof of everything
    proof_failure: ProofFailure | None  # why the last proof could not be made
    horizon_held_back_seconds: float | None  # how long an open transaction of the source has made runs read rows again
    new_columns: dict[str, tuple[str, ...]]  # columns that the contract does not know, as name and type, by source table
    files_waiting: int | None  # that no run has taken; None for a source that has none
    files_refused: int | None  # that no later file has replaced; likewise
    lock_waits: tuple[str, ...]  # sessions of Starlift that wait for a lock, and who holds it, one clause each
    rows: dict[str, int | None]  # by warehouse table, deleted rows included
    rows_estimated: tuple[str, ...]  # tables that are large or locked: their rows are the planner's estimate
    tables_not_created: tuple[str, ...]  # nothing has been loaded into them yet
    tables_fresh_as_of: dict[str, AwareDatetime | None]  # as `fresh_as_of`, by warehouse table
    psql: str | None  # the command that opens the star of a local stack

    @property
    def is_proof_old(self) -> bool:
        """Whether a regular series of proofs has stopped; a proof made by hand starts no series."""
        return self.proved is not None and _is_old(self.proved, self.at)


def report_of(answers: Answers) -> StatusReport:
    """The report that the answers add up to."""
    progress = answers.progress
    checkpoint = progress.checkpoint if progress else None
    consistent = progress.consistent_through if progress else None
    fresh = progress.fresh_as_of if progress else None
    problems = problems_of(answers)
    return StatusReport(
        at=answers.at,
        healthy=False if problems else None if answers.late else True,
        problems=tuple(problems),
        silent={**answers.silent, **answers.late},
        late=tuple(answers.late),
        services=None if answers.services is None else dict(answers.services),
        queues=dict(answers.queues),
        dead_letters={name: depth.visible + depth.in_flight for name, depth in answers.dead_letters.items()},
        last_run=checkpoint.run if checkpoint else None,
        last_run_at=checkpoint.started_at if checkpoint else None,
        consistent_through=consistent.run if consistent else None,
        missing_batches=tuple(batch.data.batch_id for batch in progress.missing) if progress else None,
        overdue_batches=progress.overdue if progress else None,
        superseded_batches=tuple(batch.data.batch_id for batch in progress.superseded) if progress else None,
        fresh_as_of=fresh,
        behind_seconds=_seconds(answers.at - fresh) if fresh else None,
        quarantined=answers.quarantined,
        keys_compared_as_of=min((one.found_at for one in answers.comparisons.values()), default=None),
        tables_in_comparison=tuple(name for name, one in answers.comparisons.items() if not (one.has_ended and one.is_whole)),
        open_questions=sum(one.open_questions for one in answers.comparisons.values()),
        oldest_question_seconds=_oldest_question(answers.comparisons),
        proved=answers.proof,
        proof_failure=answers.proof_failure,
        horizon_held_back_seconds=_held_back(checkpoint) if checkpoint else None,
        new_columns=checkpoint.new_columns if checkpoint else {},
        files_waiting=None if answers.files is None else len(answers.files.waiting),
        files_refused=None if answers.files is None else len(answers.files.refused),
        lock_waits=tuple(map(_clause, answers.lock_waits)),
        rows={name: count.rows for name, count in answers.rows.items()},
        rows_estimated=tuple(name for name, count in answers.rows.items() if count.is_estimate),
        tables_not_created=tuple(name for name, count in answers.rows.items() if not count.exists),
        tables_fresh_as_of=dict(answers.fresh),
        psql=answers.psql,
    )


def _held_back(checkpoint: Checkpoint) -> float | None:
    since = checkpoint.held_back_since
    return None if since is None else _seconds(checkpoint.snapshot.taken_at - since)


def problems_of(answers: Answers) -> list[str]:
    """What needs a person, one clause each. A late answer is not among them: it says nothing."""
    reasons = dict.fromkeys(answers.silent.values())
    services = (answers.services or {}).items()
    dead = {name: depth.visible + depth.in_flight for name, depth in answers.dead_letters.items()}
    return [
        *(f"{', '.join(part for part, why in answers.silent.items() if why == reason)}: {reason}" for reason in reasons),
        *(f"{name} does not run" for name, service in services if service.alive_since is None),
        *(f"{name} waits: {service.waits_for}" for name, service in services if service.waits_for is not None),
        # A load may wait for another one that is at work, or for a comparison of keys.
        *(_clause(wait) for wait in answers.lock_waits if not wait.is_for_ours_at_work),
        *(f"dead letters of {name}: {count:,}" for name, count in dead.items() if count),
        *(
            []
            if answers.progress is None
            else _problems_of_rows(answers.progress, answers.at, is_delivered=answers.is_delivered)
        ),
        *([] if answers.files is None else problems_of_files(answers.files, answers.at)),
        *_problems_of_comparisons(answers.comparisons, has_dead_letters=any(dead.values())),
        *_problems_of_proof(answers.proof, answers.proof_failure, answers.at),
    ]


def _problems_of_rows(progress: Progress, at: datetime, *, is_delivered: bool) -> list[str]:
    found = [f"overdue batches: {progress.overdue:,}"] if progress.overdue else []
    # An idle source leaves no manifests, so the last loaded run may be old although the rows of the next one were just read.
    read_at = progress.checkpoint.snapshot.taken_at if progress.checkpoint and not progress.overdue else None
    is_just_read = read_at is not None and at - read_at <= STALE
    fresh = progress.fresh_as_of
    if fresh is None:
        found.append("nothing is loaded yet")
    elif at - fresh > STALE and not is_just_read and not is_delivered:  # there may have been nothing to take since
        found.append(f"the warehouse shows the source as of {(at - fresh).total_seconds() / 60:,.0f} min ago")
    return found


def _problems_of_comparisons(comparisons: Mapping[str, KeyComparison], *, has_dead_letters: bool) -> list[str]:
    late = [one for one in comparisons.values() if one.unanswered_for is not None and one.unanswered_for > OVERDUE]
    if not late:
        return []
    minutes = max(one.unanswered_for for one in late if one.unanswered_for is not None).total_seconds() / 60
    questions = counted(sum(one.open_questions for one in late), "question", "questions")
    look = "`starlift dlq list` shows whether a dead letter is why; " if has_dead_letters else ""
    advice = f"{look}`starlift ingest --compare-keys --wait` asks again"
    return [f"ingestion has not answered {questions} about deleted rows for {minutes:,.0f} min: {advice}"]


def _oldest_question(comparisons: Mapping[str, KeyComparison]) -> float | None:
    return max((_seconds(one.unanswered_for) for one in comparisons.values() if one.unanswered_for is not None), default=None)


def _problems_of_proof(proof: ProofRecord | None, failure: ProofFailure | None, at: datetime) -> list[str]:
    """What is wrong with the last proof; a system that was never proved is not unhealthy for that."""
    found = [f"the last proof failed: {failure.reason}"] if failure else []
    if proof is not None and not proof.is_equal:
        found.append("the last proof did not find the warehouse equal")
    if proof is not None and _is_old(proof, at):
        found.append("no regular proof has been made for more than an hour")
    return found


def _is_old(proof: ProofRecord, at: datetime) -> bool:
    return proof.is_regular and at - proof.taken_at > PROOF_IS_OLD


def _clause(wait: LockWait) -> str:
    return f"session {wait.waiting} of Starlift waits for a lock held by {wait}"


def _seconds(span: timedelta) -> float:
    return round(span.total_seconds(), 3)


def freshness(contract: Contract, progress: Progress) -> dict[str, datetime | None]:
    """The time up to which a table shows every commit; a missing batch counts only for the tables of its rows."""
    late = {extract.table for batch in progress.missing for extract in batch.data.extracts}
    late |= {rows.table for batch in progress.missing for rows in batch.data.gone}
    whole = progress.consistent_through
    newest = progress.checkpoint.snapshot.taken_at if progress.checkpoint and whole else None

    def is_late(table: WarehouseTable) -> bool:
        return bool(late) if isinstance(table, Calendar) else bool(late & {table.source, *(one.table for one in table.lookups)})

    return {table.name: progress.fresh_as_of if is_late(table) else newest for table in contract.warehouse_tables}
