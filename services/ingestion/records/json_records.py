"""Records of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord, Record
from services.ingestion.records.opened import Opened, beginning, form_of
from shared.codecs.json_text import Unfit, json_value


def json_line_pages(opened: Opened, table: SourceTable) -> Iterator[list[Record | BadRecord]]:
    """The records of JSON lines. Raises: UnreadableDeliveryError."""
    page = list[Record | BadRecord]()
    for place, line in enumerate(opened.lines(form_of(table).encoding), start=1):
        if line.isspace() or not line:
            continue
        try:
            page.append(_record(place, json_value(line), line))
        except json.JSONDecodeError as error:
            page.append(BadRecord(place, f"is not JSON: {error.msg} at character {error.pos + 1}", beginning(line)))
        except ValueError as error:
            page.append(BadRecord(place, f"is not JSON that can be read: {error}", beginning(line)))
        if opened.is_page_full(len(page)):
            yield page
            page, opened.page_start = [], opened.byte_count
    if page:
        yield page


def _record(place: int, value: Any, text: str) -> Record | BadRecord:
    if isinstance(value, dict):
        return Record(place, value)
    what = value.what if isinstance(value, Unfit) else "not an object"
    return BadRecord(place, f"is {what}", beginning(text))
