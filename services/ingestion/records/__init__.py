"""From the bytes of a delivery to typed rows: a file is opened, its records are read, and pages of them become frames.

Values are read exactly or refused, and in bounded memory whatever the bytes are. Three things can happen if something is wrong:

- A delivery that can't be read as a whole raises UnreadableDeliveryError: a wrong encoding, a missing column, a cut-off end.
- A record without a readable key is a BadRecord.
- Any other value that can't be read is NULL, and the row's defect names its column, as for rows of a database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import BinaryIO

from contracts.datasets import Format
from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord, Record, UnreadableDeliveryError
from services.ingestion.records.csv_records import csv_pages
from services.ingestion.records.json_records import json_line_pages, json_pages
from services.ingestion.records.opened import Limits, Opened, form_of
from services.ingestion.records.parquet_records import parquet_pages

_PAGES = {Format.CSV: csv_pages, Format.JSON_LINES: json_line_pages, Format.JSON: json_pages}


async def read_records(
    file: BinaryIO, table: SourceTable, limits: Limits | None = None
) -> AsyncGenerator[list[Record | BadRecord], None]:
    """The records of a file, or of one page of an API's answer, in bounded memory; read in a thread.

    Columns that the contract does not know are among a record's values. Raises: UnreadableDeliveryError.
    """
    pages = record_pages(file, table, limits or Limits())
    while (page := await asyncio.to_thread(next, pages, None)) is not None:
        yield page


def record_pages(file: BinaryIO, table: SourceTable, limits: Limits) -> Iterator[list[Record | BadRecord]]:
    """As `read_records`."""
    form = form_of(table).format
    pages = parquet_pages(file, table, limits) if form is Format.PARQUET else _PAGES[form](Opened(file, limits), table)
    for number, page in enumerate(pages):
        if number == 0:
            _require_sense(page, table)
        yield page


def _require_sense(page: Sequence[Record | BadRecord], table: SourceTable) -> None:
    """Refuse a delivery as a whole, and not record by record, if nothing of its first page fits the contract."""
    bad = [one for one in page if isinstance(one, BadRecord)]
    if len(bad) == len(page):
        raise UnreadableDeliveryError(
            f"none of its first {len(bad)} records can be read: the one at {bad[0].place} {bad[0].reason}; "
            "check the format, the delimiter and the encoding in the contract"
        )
    names = set[str]().union(*(one.values for one in page if isinstance(one, Record)))
    if missing := [column.name for column in table.stored_columns if not column.nullable and column.name not in names]:
        shown = ", ".join(repr(name[:63]) for name in sorted(names)[:20])
        advice = "correct the names of its columns, or those in the contract"
        raise UnreadableDeliveryError(f"none of its first {len(page)} records has '{missing[0]}', only {shown}; {advice}")
