"""Which keys a delivery has had so far: of two records with one key, which counts must not depend on chance."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from hashlib import blake2b
from types import TracebackType
from typing import Self

from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord
from services.ingestion.records.opened import beginning
from services.ingestion.records.typed import TypedRecords, place_word
from shared.source_keys import Key, keys_of

_LONG = 64  # characters: a longer key is held by its hash


class SeenKeys:
    """The keys of a delivery, in a file without a name: those of millions of rows don't fit into memory.

    They are stored as they are, since deliveries are often sorted by them, and hashes would scatter them over the file.
    """

    def __init__(self) -> None:
        """Begin a file, of which nothing is left when the process ends, even if it is killed."""
        self._rows = 0
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._file.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000;"
            "CREATE TABLE seen (key PRIMARY KEY, row INTEGER, place INTEGER) WITHOUT ROWID; BEGIN"
        )

    def __enter__(self) -> Self:
        """Nothing is left to do."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    def first_only(self, table: SourceTable, typed: TypedRecords) -> TypedRecords:
        """The next records of the delivery, without those whose key, and version if the data set has one, it has had before."""
        keys = keys_of(table, typed.frame)
        if table.dataset is not None and table.dataset.version is not None:
            versions = typed.frame[table.dataset.version].tolist()
            keys = [(*key, version) for key, version in zip(keys, versions, strict=True)]
        rows = [(_held(key), row, place) for row, (key, place) in enumerate(zip(keys, typed.places, strict=True), self._rows)]
        first, self._rows = self._rows, self._rows + len(rows)
        before = self._file.total_changes
        self._file.executemany("INSERT INTO seen VALUES (?, ?, ?) ON CONFLICT DO NOTHING", sorted(rows))
        if self._file.total_changes - before == len(rows):
            return typed
        repeated = dict[int, int]()  # rows of the frame, with the place of the first with their key
        for key, row, _ in rows:
            (seen, place) = self._file.execute("SELECT row, place FROM seen WHERE key = ?", (key,)).fetchone()
            if seen != row:
                repeated[row - first] = place
        bad = [
            BadRecord(
                typed.places[row],
                f"repeats the key of {place_word(table)} {place}",
                beginning(json.dumps(keys[row], default=str)),
            )
            for row, place in repeated.items()
        ]
        frame = typed.frame.drop(index=list(repeated)).reset_index(drop=True)
        places = [place for row, place in enumerate(typed.places) if row not in repeated]
        return replace(typed, frame=frame, places=places, bad=[*typed.bad, *bad])


def _held(key: Key) -> int | str:
    if len(key) == 1 and isinstance(key[0], int):
        return key[0]
    text = json.dumps(key, default=str)  # a version may be NULL
    return text if len(text) <= _LONG else blake2b(text.encode(), digest_size=32).hexdigest()
