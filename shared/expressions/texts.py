"""Reading texts without recursion: those that PostgreSQL makes of jsonb and arrays, and those that spell numbers and dates.

A jsonb's text has one form: keys are unique, and a part of it is the text of that part.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from decimal import Decimal

from contracts.expressions import PARSED_DIGITS_MAXIMUM

_EPOCH = dt.date(1970, 1, 1)
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s"\[\]{}:,]+', re.DOTALL)
_ARRAY_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{},]|[^"{},]+', re.DOTALL)
_WHOLE = re.compile(rf"[+-]?[0-9]{{1,{PARSED_DIGITS_MAXIMUM}}}")
_DECIMAL = re.compile(rf"[+-]?[0-9]{{1,{PARSED_DIGITS_MAXIMUM}}}(\.[0-9]{{1,{PARSED_DIGITS_MAXIMUM}}})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def json_part(document: str, place: str | int) -> str | None:
    """The text of `document -> place`: the value of a key, or an element, counted from 0, or from the end if negative."""
    if isinstance(place, str):
        members = _members(document) if document.startswith("{") else ()
        return next((value for key, value in members if json.loads(key) == place), None)
    if document.startswith("{"):
        return None
    elements = [value for _, value in _members(document)] if document.startswith("[") else [document]  # as PostgreSQL has it
    return elements[place] if -len(elements) <= place < len(elements) else None


def json_text(document: str, place: str | int) -> str | None:
    """`document ->> place`: a text without its quotes and escapes, and nothing for null."""
    part = json_part(document, place)
    if part is None or part == "null":
        return None
    return str(json.loads(part)) if part.startswith('"') else part


def _members(document: str) -> Iterator[tuple[str, str]]:
    """Each key, as it is written, with the text of its value; the elements of an array have an empty key."""
    depth, begin, key = 0, 1, ""
    for token in _JSON_TOKEN.finditer(document):
        sign = token[0]
        depth += (sign in "{[") - (sign in "}]")
        if (depth == 1 and sign == ",") or not depth:
            if value := document[begin : token.start()].strip():
                yield key, value
            begin = token.end()
        elif depth == 1 and sign == ":":
            key, begin = document[begin : token.start()].strip(), token.end()


def array_length(array: str) -> int | None:
    """The elements of an array's first dimension; None of an empty one."""
    return _commas(array, 1) + 1 if cardinality(array) else None


def cardinality(array: str) -> int:
    """The elements of an array, in all its dimensions."""
    return 0 if array == "{}" else _commas(array, None) + 1


def _commas(array: str, wanted: int | None) -> int:
    """The commas between elements, at one depth or at any."""
    found = depth = 0
    for token in _ARRAY_TOKEN.finditer(array.partition("=")[2] if array.startswith("[") else array):
        depth += (token[0] == "{") - (token[0] == "}")
        found += token[0] == "," and wanted in {None, depth}
    return found


def whole(text: str) -> int | None:
    """The whole number that a text spells; None if it spells none."""
    trimmed = text.strip(" ")
    return int(trimmed) if _WHOLE.fullmatch(trimmed) else None


def decimal(text: str) -> Decimal | None:
    """The number that a text spells; None if it spells none."""
    trimmed = text.strip(" ")
    return Decimal(trimmed) if _DECIMAL.fullmatch(trimmed) else None


def date(text: str) -> int | None:
    """The date that a text spells as YYYY-MM-DD, as days since 1970-01-01; None if it spells none."""
    try:
        return (dt.date.fromisoformat(text) - _EPOCH).days if _DATE.fullmatch(text) else None
    except ValueError:
        return None
