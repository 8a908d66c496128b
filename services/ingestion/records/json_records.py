"""Records of JSON: of lines, or of an array somewhere in a document.

A document is read element by element. The standard library has no parser for that, so its parser of single values is tried on
what has been read so far, and again when there is more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from io import TextIOBase
from typing import Any

from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord, Record, UnreadableDeliveryError
from services.ingestion.records.opened import BYTE_ORDER_MARK, Opened, beginning, form_of
from shared.codecs.json_text import JSON, Unfit, json_value

_READ = 64 * 1024  # characters
_SPACE = " \t\r\n"
_NEAR = 12  # characters: the longest of what may be cut in two by the end of what has been read, but a string (\\ud83d\\ude00)


def json_line_pages(opened: Opened, table: SourceTable) -> Iterator[list[Record | BadRecord]]:
    """The records of JSON lines. Raises: UnreadableDeliveryError."""
    page, end = list[Record | BadRecord](), opened.begin_page()
    for place, line in enumerate(opened.lines(form_of(table).encoding), start=1):
        if line.isspace() or not line:
            continue
        try:
            page.append(_record(place, json_value(line), line))
        except json.JSONDecodeError as error:
            page.append(BadRecord(place, f"is not JSON: {error.msg} at character {error.pos + 1}", beginning(line)))
        except ValueError as error:
            page.append(BadRecord(place, f"is not JSON that can be read: {error}", beginning(line)))
        if len(page) >= opened.limits.page_records or opened.byte_count >= end:
            yield page
            page, end = [], opened.begin_page()
    if page:
        yield page


def _record(place: int, value: Any, text: str) -> Record | BadRecord:
    if isinstance(value, dict):
        return Record(place, value)
    what = value.what if isinstance(value, Unfit) else "not an object"
    return BadRecord(place, f"is {what}", beginning(text))


def json_pages(opened: Opened, table: SourceTable) -> Iterator[list[Record | BadRecord]]:
    """The records of a JSON document. Raises: UnreadableDeliveryError."""
    form = form_of(table)
    page, end = list[Record | BadRecord](), opened.begin_page()
    with opened.text("utf-8") as text:
        document = _Document(text)
        for place, value in enumerate(_elements(document, form.path.split(".") if form.path else []), start=1):
            page.append(_record(place, value, "" if isinstance(value, dict) else str(value)))
            if len(page) >= opened.limits.page_records or opened.byte_count >= end:
                yield page
                page, end = [], opened.begin_page()
        if document.next():
            raise document.error("something follows the end of the document")
    if page:
        yield page


class _Document:
    """A JSON document, of which a part has been read."""

    def __init__(self, text: TextIOBase) -> None:
        self._text, self._at, self._line = text, 0, 1
        self._part = text.read(_READ).removeprefix(BYTE_ORDER_MARK)

    def error(self, problem: str) -> UnreadableDeliveryError:
        """Why it can't be read."""
        line = self._line + self._part.count("\n", 0, self._at)
        return UnreadableDeliveryError(f"it is cut off, or not JSON, at line {line}: {problem}; deliver it again, complete")

    def next(self) -> str:
        """The next character that is not white space; '' at the end."""
        while True:
            while self._at < len(self._part):
                if self._part[self._at] not in _SPACE:
                    return self._part[self._at]
                self._at += 1
            if not self._read(_READ):
                return ""

    def take(self, expected: str) -> None:
        """Pass over a character. Raises: UnreadableDeliveryError if another one is next."""
        if self.next() != expected:
            raise self.error(f"'{expected}' is expected")
        self._at += 1

    def items(self, first: str, last: str) -> Iterator[None]:
        """Come to each member of an object, or to each element of an array, in turn."""
        self.take(first)
        if self.next() != last:
            yield
            while self.next() == ",":
                self._at += 1
                yield
        self.take(last)

    def value(self) -> Any:
        """The next value. Raises: UnreadableDeliveryError."""
        self.next()
        size = _READ
        while True:
            try:
                value, end = JSON.raw_decode(self._part, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos > len(self._part) - _NEAR
                if is_cut and self._read(size):
                    size *= 2
                    continue
                raise self.error(error.msg) from error
            except RecursionError:
                raise self.error("objects and arrays are nested too deeply") from None
            if end < len(self._part) or not self._read(size):  # otherwise a number may go on
                self._at = end
                return value

    def _read(self, size: int) -> str:
        """Read on, and drop what lies behind."""
        more = self._text.read(size)
        self._line += self._part.count("\n", 0, self._at)
        self._part, self._at = self._part[self._at :] + more, 0
        return more


def _elements(document: _Document, path: Sequence[str]) -> Iterator[Any]:
    """The elements of the array at `path`; the rest of the document is also read, to notice one that is cut off."""
    if not path:
        if document.next() == "{":
            raise UnreadableDeliveryError(
                "it has an object where the records should be; name the path to their array as `records` in the contract"
            )
        for _ in document.items("[", "]"):
            yield document.value()
        return
    is_found = False
    for _ in document.items("{", "}"):
        name = document.value()
        document.take(":")
        if name != path[0]:
            document.value()
        elif is_found:
            raise UnreadableDeliveryError(f"it has two members '{name}' on the path to the records; remove one")
        else:
            is_found = True
            yield from _elements(document, path[1:])
    if not is_found:
        raise UnreadableDeliveryError(
            f"it has no member '{path[0]}' on the path to the records; correct `records` in the contract"
        )
