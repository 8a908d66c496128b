"""Reading the rows that a message refers to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pandas as pd

from contracts.column_types import ColumnType
from contracts.contract import Contract
from contracts.objects import ObjectRef, is_bundle
from shared.bundles import decode_bundle, frame_of, some_columns
from shared.errors import PermanentError
from shared.object_store import ObjectStore
from shared.parquet import NewerColumnsError, decode_columns, decode_parquet, known_columns, widened

NEWER_COLUMNS_DELAY = timedelta(seconds=60)  # about the time that a deployment takes to replace a task


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows of one table in an object of their own, or in a bundle."""

    name: str  # in a bundle
    ref: ObjectRef
    types: Mapping[str, ColumnType]


async def read_rows(
    objects: ObjectStore, stored: Sequence[StoredRows], contract: Contract, what: str, *, is_earlier: bool = False
) -> list[pd.DataFrame]:
    """The frame of each, in the form of shared.codecs; a bundle is read once. An error names the object by `what` and its key.

    Rows that `is_earlier` may have been written under an earlier contract: they are NULL in columns that it did not have, and
    columns that it had alone are left out.

    Raises: NewerColumnsError, PermanentError, TransientError, DependencyDownError.
    """
    by_object: dict[ObjectRef, list[int]] = {}
    for place, rows in enumerate(stored):
        by_object.setdefault(rows.ref.model_copy(update={"row_count": 0}), []).append(place)
    frames = dict[int, pd.DataFrame]()

    async def read(ref: ObjectRef, places: list[int]) -> None:
        body = await objects.get(ref)
        found = await asyncio.to_thread(_decoded, body, [stored[place] for place in places], contract, what, is_earlier)
        frames.update(zip(places, found, strict=True))

    await asyncio.gather(*(read(ref, places) for ref, places in by_object.items()))
    return [frames[place] for place in range(len(stored))]


def _decoded(
    body: bytes,
    stored: Sequence[StoredRows],
    contract: Contract,
    what: str,
    is_earlier: bool,  # noqa: FBT001
) -> list[pd.DataFrame]:
    """The frames of rows that are in one object."""
    tables, frames = decode_bundle(body) if is_bundle(stored[0].ref.key) else None, list[pd.DataFrame]()
    for rows in stored:
        place = f"{what} '{rows.ref.key}'" if tables is None else f"{what} of '{rows.name}' in '{rows.ref.key}'"
        try:
            if is_earlier:
                known = set(known_columns(body) if tables is None else tables[rows.name].known)
                types = {name: kind for name, kind in rows.types.items() if name in known}
                frame = decode_columns(body, types) if tables is None else some_columns(tables[rows.name], types)
                frames.append(widened(frame, rows.types))
            else:
                frames.append(decode_parquet(body, rows.types) if tables is None else frame_of(tables[rows.name], rows.types))
        except NewerColumnsError as error:
            raise NewerColumnsError(f"{place}: {error}") from error
        except KeyError as error:
            raise PermanentError(f"{place} does not fit contract '{contract.name}': {error}") from error
    return frames
