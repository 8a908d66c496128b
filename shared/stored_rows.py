"""Reading the rows that a message refers to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pandas as pd

from contracts.column_types import ColumnType
from contracts.contract import Contract
from contracts.objects import ObjectRef
from shared.errors import PermanentError
from shared.object_store import ObjectStore
from shared.parquet import NewerColumnsError, decode_parquet

NEWER_COLUMNS_DELAY = timedelta(seconds=60)  # about the time that a deployment takes to replace a task


async def read_rows(
    objects: ObjectStore, ref: ObjectRef, types: Mapping[str, ColumnType], contract: Contract, what: str
) -> pd.DataFrame:
    """The rows of an object, in the form of shared.codecs. An error names it by `what` and its key.

    Raises: NewerColumnsError, PermanentError, TransientError, DependencyDownError.
    """
    body = await objects.get(ref)
    try:
        return await asyncio.to_thread(decode_parquet, body, types)
    except NewerColumnsError as error:
        raise NewerColumnsError(f"{what} '{ref.key}': {error}") from error
    except KeyError as error:
        raise PermanentError(f"{what} '{ref.key}' does not fit contract '{contract.name}': {error}") from error
