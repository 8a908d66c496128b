"""Records of CSV, as RFC 4180 has it: with a header, quotes doubled, and line ends of any kind."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord, Record, UnreadableDeliveryError
from services.ingestion.records.opened import Opened, beginning, form_of


def csv_pages(opened: Opened, table: SourceTable) -> Iterator[list[Record | BadRecord]]:
    """The records. Raises: UnreadableDeliveryError."""
    form, limits = form_of(table), opened.limits
    csv.field_size_limit(2 * (limits.page_bytes + limits.record_bytes))  # for the process: `opened` ends a record earlier
    rows = csv.reader(opened.lines(form.encoding), delimiter=form.delimiter, strict=True)
    header = _header(rows, table, limits.columns)
    most = max(1, min(limits.page_records, limits.page_fields // len(header)))
    page, place, end = list[Record | BadRecord](), rows.line_num + 1, opened.begin_page()
    while True:
        try:
            for row in rows:
                if len(row) == len(header):
                    fields = [None if field == form.null else field for field in row] if form.null in row else row
                    page.append(Record(place, dict(zip(header, fields, strict=False))))  # twice as fast as strict
                elif row:
                    reason = f"has {len(row)} fields instead of {len(header)}"
                    page.append(BadRecord(place, reason, beginning(form.delimiter.join(row))))
                place = rows.line_num + 1
                if len(page) >= most or opened.byte_count >= end:
                    if page:  # blank lines alone are not one
                        yield page
                    page, end = [], opened.begin_page()
            break
        except csv.Error as error:
            if "end of data" in str(error):
                raise UnreadableDeliveryError(
                    f"a quote that opens in the record at line {place} is never closed; correct it, and deliver the whole file"
                ) from error
            page.append(BadRecord(place, "has text after a quoted field, or a quote inside it that is not written twice"))
            place = rows.line_num + 1
    if page:
        yield page


def _header(rows: Iterator[list[str]], table: SourceTable, most: int) -> Sequence[str]:
    """The header, if it fits the data set. Raises: UnreadableDeliveryError."""
    try:
        names = next(rows, None)
    except csv.Error as error:
        raise UnreadableDeliveryError(
            "its header has a quote that is never closed, or text after a quoted name; correct its first line"
        ) from error
    if not names:
        raise UnreadableDeliveryError("it has no header: its first line must name the columns")
    if len(names) > most:
        raise UnreadableDeliveryError(f"its header names {len(names)} columns; deliver at most {most}")
    wanted = [column.name for column in table.stored_columns]
    if missing := [name for name in wanted if name not in names]:
        shown = ", ".join(repr(name[:63]) for name in names[:20])
        raise UnreadableDeliveryError(
            f"its header has no column {', '.join(map(repr, missing))}; it has {shown}; correct the header, or "
            "the delimiter or the columns in the contract"
        )
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise UnreadableDeliveryError(f"its header has the column '{twice[0]}' more than once; rename or remove one")
    return names
