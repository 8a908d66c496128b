"""The files of the drop zone: which wait, and what became of the others; of an API, what became of the last fetch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial

from pydantic import AwareDatetime, BaseModel

from contracts.contract import Contract
from contracts.datasets import DROP_ZONE, Contents
from contracts.files import FileRecord, Outcome, drop_zone_of, records_of
from contracts.state import DatasetState
from contracts.tables import SourceTable
from services.operator.errors import NotLoadedError, UsageError
from services.operator.system import System
from services.operator.wording import printable
from shared.dropzone import waiting_files
from shared.reading import all_of

RECORDS_READ = 100  # the newest of each data set, where a person wants to know what is wrong
OVERDUE = timedelta(minutes=30)  # a waiting file: the schedule lists the drop zone every 15 minutes


class WaitingFile(BaseModel, frozen=True):
    """A version of a file that no run has taken yet."""

    dataset: str | None  # None: no data set has its folder, so no run ever takes it
    key: str  # in the landing bucket
    byte_count: int
    written_at: AwareDatetime  # by S3's clock


class Files(BaseModel, frozen=True):
    """What waits, in the order in which it is taken, and what became of the rest, the newest first."""

    waiting: tuple[WaitingFile, ...]
    recorded: tuple[FileRecord, ...]
    refused: tuple[FileRecord, ...]  # those of them that no later file has replaced


async def read_files(system: System, dataset: str | None = None, *, limit: int) -> Files:
    """Read what waits, and the newest `limit` records of each data set of the source, or of one; a database has none.

    Raises: UsageError; DependencyDownError, PermanentError, TransientError.
    """
    every = (system.contract.whole or system.contract).source_tables
    if dataset is not None and dataset not in (known := [table.name for table in every if table.dataset is not None]):
        raise UsageError(f"there is no data set '{dataset}'; the data sets are {', '.join(known) or 'none'}")
    tables = [one for one in system.contract.source_tables if one.dataset is not None and dataset in (None, one.name)]
    store, waiting, recorded, refused = system.store, list[WaitingFile](), list[FileRecord](), list[FileRecord]()
    checkpoint = await store.find_checkpoint() if tables else None
    for table in tables:
        for one in await waiting_files(store.objects, store.landing_bucket, table.name):
            waiting.append(WaitingFile(dataset=table.name, key=one.key, byte_count=one.byte_count, written_at=one.written_at))
        records = await _records(system, table.name, limit)
        recorded += records
        refused += _not_replaced(table, records, checkpoint.datasets.get(table.name) if checkpoint else None)
    return Files(
        waiting=tuple(sorted(waiting, key=lambda one: (one.written_at, one.key))),
        recorded=tuple(sorted(recorded, key=lambda one: one.recorded_at, reverse=True)),
        refused=tuple(sorted(refused, key=lambda one: one.recorded_at, reverse=True)),
    )


async def files_of_no_data_set(system: System, contract: Contract) -> list[WaitingFile]:
    """The files in folders of the drop zone that no data set of any source has."""
    store, known = system.store, tuple(drop_zone_of(table.name) for table in (contract.whole or contract).source_tables)
    listed = await store.objects.versions(store.landing_bucket, DROP_ZONE)
    return [
        WaitingFile(dataset=None, key=one.key, byte_count=one.byte_count, written_at=one.written_at)
        for one in listed
        if not (one.is_deleted or one.key.endswith("/") or one.key.startswith(known))
    ]


async def require_none_refused(system: System, since: datetime) -> None:
    """Raises: NotLoadedError if a file, or a fetch from an API, was refused since then, by the clock of ingestion."""
    refused = [one for one in (await read_files(system, limit=RECORDS_READ)).refused if one.recorded_at >= since]
    if refused:
        more = f"; and {len(refused) - 1:,} more, see `starlift files`" if refused[1:] else ""
        raise NotLoadedError(f"'{printable(refused[0].key)}' was refused: {printable(refused[0].reason)}{more}")


def problems_of_files(files: Files, at: datetime) -> Iterator[str]:
    """What needs a person, one clause each."""
    if files.refused:
        last = files.refused[0]
        more = f" and {len(files.refused) - 1:,} more" if files.refused[1:] else ""
        yield f"refused: '{printable(last.key)}'{more}; `starlift files` shows why"
    late = [one for one in files.waiting if at - one.written_at > OVERDUE]
    if late:
        minutes = max(at - one.written_at for one in late).total_seconds() / 60
        yield f"files that no run has taken for up to {minutes:,.0f} min: {len(late):,}; `starlift files` lists them"


async def _records(system: System, dataset: str, limit: int) -> list[FileRecord]:
    """The newest records of a data set, in the order of recording."""
    store = system.store
    keys = await store.objects.keys(store.landing_bucket, records_of(dataset))
    read = partial(store.read_document, model=FileRecord, what="record of a file", remedy="delete it")
    found = await all_of(keys[-limit:], read)
    return sorted((one for one in found if one is not None), key=lambda one: one.recorded_at)


def _not_replaced(table: SourceTable, records: Sequence[FileRecord], state: DatasetState | None) -> list[FileRecord]:
    """The refused files that no later one has replaced: any whole snapshot, or of increments a file of the same name."""
    is_whole = table.dataset is not None and table.dataset.contents is Contents.SNAPSHOT
    taken_run = state.taken_run or 0 if state is not None else 0  # about the time of its start, in milliseconds
    refused = dict[str, FileRecord]()
    for record in records:
        if record.outcome is Outcome.REFUSED and record.recorded_at.timestamp() * 1_000 < taken_run:
            continue
        if record.outcome is Outcome.REFUSED:
            refused[record.key] = record
        elif is_whole:
            refused.clear()
        else:
            refused.pop(record.key, None)
    return list(refused.values())
