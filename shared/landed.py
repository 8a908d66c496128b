"""The truth of a data set: the rows delivered since its newest whole snapshot (docs/decisions/0022-files-and-apis.md).

They are in the extracts that manifests name. A run writes its manifest before the state, so after a crash there may be
manifests of runs above the checkpoint's. They count: such a run has announced every one of its batches, so the star has their
rows or will have them. That stays true when the delivery is taken again. The run that takes it has a higher number, and so its
images of the same rows are the ones that count; if the delivery is a whole snapshot, the truth then begins anew with that run.

A run that was killed before its manifest counts for nothing. The star may have rows of it, until the next run brings the same.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any

import pandas as pd

from contracts.contract import Contract
from contracts.messages import Extract, Role
from contracts.objects import extract_name
from contracts.state import Checkpoint, DatasetState
from contracts.tables import SourceTable
from shared.codecs.codec import MIB
from shared.errors import PermanentError
from shared.object_store import ObjectDamagedError, ObjectMissingError
from shared.parquet import empty_frame
from shared.reading import AT_ONCE, in_order
from shared.source_keys import Key, keys_of
from shared.source_store import SourceStore
from shared.stored_rows import StoredRows, read_rows

BYTES_AT_ONCE = 8 * MIB  # of objects that are read together; a single one may be larger
_NO_VERSION = -(2**63)  # below every version: a row whose version is NULL is the oldest


@dataclass(frozen=True, slots=True)
class LandedRows:
    """Rows of a data set from one batch."""

    run: int  # that announced them
    extract: Extract
    frame: pd.DataFrame  # in the form of shared.codecs, with the columns `SourceTable.extract_types`


@dataclass(frozen=True, slots=True)
class Truth:
    """What has been delivered of one data set. Every method reads it anew, in bounded memory.

    Each raises DependencyDownError, TransientError, and PermanentError if an object is missing or damaged.
    """

    store: SourceStore
    contract: Contract  # by which the rows are read: one part of it is enough
    table: SourceTable  # the data set
    whole_run: int | None  # the run of its newest whole snapshot; None: the truth begins with the first run

    async def extracts(self) -> AsyncIterator[tuple[int, Extract]]:
        """Each extract that holds rows of the data set, with its run, in the order of runs and batches.

        Its whole run is never below that of an earlier run. One that died after its manifest, and before the state, has left a
        lower one to the run after it, whose rows are newer all the same.
        """
        runs = await self.store.manifest_runs(after=(self.whole_run or 1) - 1)
        if self.whole_run is not None and self.whole_run not in runs[:1]:
            raise PermanentError(
                f"'{self.store.landing_bucket}/{self.store.keys.manifest(self.whole_run)}' does not exist, so rows that were "
                f"delivered of '{self.table.name}' can't be read; restore it, or deliver a whole snapshot of it"
            )
        newest = 0
        async for run, manifest in in_order(runs, self.store.read_manifest):
            for batch in sorted(manifest.batches, key=lambda batch: batch.data.index):
                for extract in batch.data.extracts:
                    if extract.table == self.table.name and extract.role is Role.BASE and extract.object.row_count:
                        newest = max(newest, extract.whole_run or 0)
                        yield run, extract.model_copy(update={"whole_run": newest})

    async def rows(self) -> AsyncGenerator[LandedRows, None]:
        """Every row that was delivered, also those that a later one replaces, in the order of runs and batches."""
        group, size = list[tuple[int, Extract]](), 0
        async for run, extract in self.extracts():
            if group and (len(group) == AT_ONCE or size + extract.object.byte_count > BYTES_AT_ONCE):
                for landed in await self._read(group):
                    yield landed
                group, size = [], 0
            group.append((run, extract))
            size += extract.object.byte_count
        for landed in await self._read(group):
            yield landed

    async def _read(self, group: Sequence[tuple[int, Extract]]) -> list[LandedRows]:
        name = extract_name(self.table.name, Role.BASE)
        stored = [StoredRows(name, extract.object, self.table.extract_types) for _, extract in group]
        try:
            frames = await read_rows(self.store.objects, stored, self.contract, "extract", is_earlier=True)
        except (ObjectMissingError, ObjectDamagedError) as error:
            what, _, _ = str(error).partition("; ")
            raise type(error)(f"{what}; restore it, or deliver a whole snapshot of '{self.table.name}'") from error
        key = [self.table.key_text] if self.table.key_text else list(self.table.key)  # NULL in a record without a readable key
        return [LandedRows(*one, frame[frame[key].notna().all(axis=1)]) for one, frame in zip(group, frames, strict=True)]

    async def is_empty(self) -> bool:
        """Whether it has no row."""
        return await anext(self.extracts(), None) is None

    async def missing_keys(self, keys: Sequence[Key]) -> tuple[Key, ...]:
        """Those of `keys` that no row has, in their order."""
        missing = set(keys)
        async with aclosing(self.rows()) as every:
            async for landed in every:
                missing.difference_update(keys_of(self.table, landed.frame))
                if not missing:
                    break
        return tuple(key for key in keys if key in missing)

    async def rows_of(self, keys: Collection[Key]) -> pd.DataFrame:
        """The newest row of each of `keys` that has one, in no order."""
        wanted, newest = set(keys), dict[Key, tuple[tuple[int, ...], pd.DataFrame]]()
        async for landed in self.rows():
            found = zip(keys_of(self.table, landed.frame), self._ranks(landed), strict=True)
            for place, (key, rank) in enumerate(found):
                if key in wanted and (key not in newest or newest[key][0] <= rank):
                    newest[key] = rank, landed.frame.iloc[[place]]
        frames = [frame for _, frame in newest.values()]
        return pd.concat(frames, ignore_index=True) if frames else empty_frame(self.table.extract_types)

    async def current_rows(self) -> AsyncGenerator[pd.DataFrame, None]:
        """The newest row of each key, in the order of their runs. A file of the local disk serves to find it."""
        runs = {run async for run, _ in self.extracts()}
        with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as index:  # one thread at a time
            has_version = self.table.dataset is not None and self.table.dataset.version is not None
            may_repeat = len(runs) > 1 or has_version  # one delivery repeats a key only with another version
            if may_repeat:
                await self._find_newest(index)
            place = 0
            async for landed in self.rows():
                frame, before = landed.frame, place
                place += len(frame)
                if may_repeat:
                    frame = frame.iloc[await asyncio.to_thread(_places, index, before, place)]
                if len(frame):
                    yield frame

    async def _find_newest(self, index: sqlite3.Connection) -> None:
        """Fill `index` with the place of each key's newest row among all rows."""
        place = 0
        await asyncio.to_thread(index.executescript, _INDEX)
        async for landed in self.rows():
            keys = map(json.dumps, keys_of(self.table, landed.frame))
            rows = [(key, *rank, place + row) for row, (key, rank) in enumerate(zip(keys, self._ranks(landed), strict=True))]
            place += len(rows)
            await asyncio.to_thread(_add, index, rows)
        await asyncio.to_thread(index.execute, "CREATE INDEX newest_place ON newest (place)")

    def _ranks(self, landed: LandedRows) -> list[tuple[int, ...]]:
        """What orders the images of one key: the newest whole snapshot at their run, the version if there is one, the run."""
        whole_run, count = landed.extract.whole_run or 0, len(landed.frame)
        version = self.table.dataset.version if self.table.dataset is not None else None
        versions = [0] * count if version is None else landed.frame[version].fillna(_NO_VERSION).tolist()
        return [(whole_run, value, landed.run) for value in versions]


_INDEX = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE newest (key TEXT PRIMARY KEY, whole_run INTEGER, version INTEGER, run INTEGER, place INTEGER) WITHOUT ROWID;
"""
_NEWER = """
INSERT INTO newest VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE
SET (whole_run, version, run, place) = (excluded.whole_run, excluded.version, excluded.run, excluded.place)
WHERE (excluded.whole_run, excluded.version, excluded.run) >= (newest.whole_run, newest.version, newest.run)
"""


def _add(index: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    index.execute("BEGIN")
    index.executemany(_NEWER, rows)
    index.execute("COMMIT")


def _places(index: sqlite3.Connection, first: int, beyond: int) -> list[int]:
    """The places, counted from `first`, of the newest rows among those from `first` to before `beyond`."""
    found = index.execute("SELECT place FROM newest WHERE place >= ? AND place < ? ORDER BY place", (first, beyond))
    return [place - first for (place,) in found]


def read_as(table: SourceTable, state: DatasetState) -> DatasetState:
    """The state of a data set after a run that announces its rows as the contract has them."""
    return state.model_copy(update={"columns": {one.name: one.type.sql for one in table.columns}, "key": table.key})


def truth_of(store: SourceStore, contract: Contract, table: SourceTable, checkpoint: Checkpoint | None) -> Truth:
    """The truth of a data set, as of what the last completed run left and of any manifest above it.

    Raises: PermanentError if the contract has come to read its rows in another way.
    """
    return truth_since(store, contract, table, checkpoint.datasets.get(table.name) if checkpoint is not None else None)


def truth_since(store: SourceStore, contract: Contract, table: SourceTable, left: DatasetState | None) -> Truth:
    """As `truth_of`, of a data set of which the last run has `left` a state."""
    state = left or DatasetState()
    now = read_as(table, state)
    changed = [name for name, kind in now.columns.items() if state.columns.get(name, kind) != kind]
    if changed or (state.key or now.key) != now.key:
        what = f"the type of '{changed[0]}'" if changed else "the key"
        raise PermanentError(
            f"the contract has changed {what} of data set '{table.name}', so rows that were delivered before can't be read; "
            "change it back, or deliver a whole snapshot"
        )
    return Truth(store, contract, table, state.whole_run)
