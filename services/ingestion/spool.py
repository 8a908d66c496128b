"""A delivery that has been read to its end: its typed rows, in a file of the local disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from errno import ENOSPC
from tempfile import TemporaryFile, gettempdir
from typing import IO

import pandas as pd

from contracts.datasets import Contents
from contracts.state import DatasetState
from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord, Delivery
from services.ingestion.records.opened import beginning
from services.ingestion.records.seen_keys import SeenKeys
from services.ingestion.records.typed import frame_of, place_word
from services.ingestion.source import BatchLimits
from shared.codecs import codec_of
from shared.errors import TransientError
from shared.parquet import decode_parquet, encode_parquet

NEW_COLUMNS_MAXIMUM = 100  # names that are reported: members of JSON objects may be called anything, each by another name


@dataclass(slots=True)
class Spool:
    """The rows of a delivery, by pages of its records.

    A record without a readable key is a row of NULLs, whose defect has lines: where it is, what is wrong with it, and the
    beginning of its text.
    """

    delivery: Delivery
    file: IO[bytes]  # without a name, so that nothing of a killed run is left on the disk
    pages: list[tuple[int, int, int]] = field(default_factory=list)  # where each ends in the file; its rows, and their bytes
    row_count: int = 0  # with a key
    bad_count: int = 0  # records that are not among them
    lacks_keys: bool = False  # whether the keys of some records are not known
    new_columns: set[str] = field(default_factory=set)  # that the contract does not know; not all of very many

    @property
    def table(self) -> SourceTable:
        """The data set."""
        return self.delivery.table

    @property
    def is_whole(self) -> bool:
        """Whether the rows that it lacks are gone. They may be among the records whose keys are not known."""
        return self.delivery.contents is Contents.SNAPSHOT and not self.lacks_keys

    @property
    def is_emptied(self) -> bool:
        """Whether it is a whole snapshot without a row."""
        return self.is_whole and not self.row_count

    def state(self) -> DatasetState:
        """What the next delivery of the data set begins after.

        One with bad records is not recognized when it comes again: it may come since the contract has been corrected.
        """
        state = self.delivery.state()
        return state.model_copy(update={"sha256": None}) if self.bad_count else state

    def repeats(self, last: DatasetState) -> bool:
        """Whether it has the bytes of the last delivery. In a data set of increments a whole snapshot means more by them."""
        means_more = self.table.dataset is not None and self.delivery.contents is not self.table.dataset.contents
        return not means_more and last.sha256 is not None and self.delivery.state().sha256 == last.sha256

    async def frames(self, limits: BatchLimits) -> AsyncGenerator[pd.DataFrame, None]:
        """Its rows, as many at a time as make half a batch, at most: each frame becomes an object."""
        self.file.seek(0)
        group, rows, size = list[int](), 0, 0
        for end, row_count, byte_count in self.pages:
            if group and (rows + row_count > limits.rows // 2 or size + byte_count > limits.byte_count // 4):
                yield await asyncio.to_thread(self._read, group)
                group, rows, size = [], 0, 0
            group.append(end)
            rows, size = rows + row_count, size + byte_count
        if group:
            yield await asyncio.to_thread(self._read, group)

    def _read(self, ends: Sequence[int]) -> pd.DataFrame:
        """The pages from the place of the file to `ends`."""
        frames = [decode_parquet(self.file.read(end - self.file.tell()), self.table.extract_types) for end in ends]
        return pd.concat(frames, ignore_index=True) if frames[1:] else frames[0]

    def write(self, frames: Sequence[pd.DataFrame]) -> None:
        """Append a page."""
        rows = pd.concat(frames, ignore_index=True) if frames[1:] else frames[0]
        self.file.write(encode_parquet(rows, self.table.extract_types))
        self.pages.append((self.file.tell(), len(rows), int(rows.memory_usage(deep=True).sum())))


async def spooled(delivery: Delivery) -> Spool:
    """Read a delivery, and keep its rows in a file, which the caller closes.

    Raises: UnreadableDeliveryError; TransientError, DependencyDownError.
    """
    spool = Spool(delivery, TemporaryFile())  # noqa: SIM115 - see above
    try:
        with SeenKeys() as seen:
            async with aclosing(delivery.records()) as pages:
                async for records in pages:
                    read = await asyncio.to_thread(frame_of, delivery.table, records)
                    typed = await asyncio.to_thread(seen.first_only, delivery.table, read)
                    spool.row_count += len(typed.frame)
                    spool.bad_count += len(typed.bad)
                    spool.lacks_keys |= bool(read.bad)  # of a record that repeats a key, the key is known
                    room = NEW_COLUMNS_MAXIMUM - len(spool.new_columns)
                    spool.new_columns.update(beginning(name) for name in sorted(typed.new_columns)[:room])
                    if frames := [frame for frame in (typed.frame, _without_keys(delivery, typed.bad)) if len(frame)]:
                        await asyncio.to_thread(spool.write, frames)
    except BaseException as error:
        spool.file.close()
        if isinstance(error, sqlite3.OperationalError) or (isinstance(error, OSError) and error.errno == ENOSPC):
            raise TransientError(
                f"the disk below {gettempdir()} is full: {delivery.name} needs room for its bytes and rows; free space there"
            ) from error
        raise
    return spool


def _without_keys(delivery: Delivery, bad: Sequence[BadRecord]) -> pd.DataFrame:
    table, word = delivery.table, place_word(delivery.table)
    values: dict[str, list[str | None]] = dict.fromkeys(table.extract_types, [None] * len(bad))
    values[table.defect] = [f"{word} {one.place} of {delivery.name}\n{one.reason}\n{one.text}" for one in bad]
    return pd.DataFrame(
        {name: pd.Series(values[name], dtype=codec_of(kind).frame) for name, kind in table.extract_types.items()}
    )
