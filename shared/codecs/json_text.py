"""JSON, read strictly: numbers stay exact, and what readers understand differently, or PostgreSQL can't hold, is refused.

The standard library's parser does it. yajl, the fast one of ijson, silently reads half of a surrogate pair as a question mark.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

DIGITS_MAXIMUM = 1_000  # of a number, and of what its exponent adds: no column of a star needs more
DEPTH_MAXIMUM = 100  # of objects and arrays


@dataclass(frozen=True, slots=True)
class Unfit:
    """Stands in for a value that can't be read, so that the rest of the document can."""

    what: str  # the rest of a sentence


def _object(members: list[tuple[str, Any]]) -> dict[str, Any] | Unfit:
    """The members by name. Of two members of one name readers take the first or the last, or refuse both."""
    found = dict(members)
    return found if len(found) == len(members) else Unfit("an object with two members of one name")


def _number(text: str) -> int | Decimal | Unfit:
    if len(text) <= DIGITS_MAXIMUM:
        number = Decimal(text)
        if abs(number.adjusted()) <= DIGITS_MAXIMUM:
            return number
    return Unfit(f"a number of more than {DIGITS_MAXIMUM} digits")


def _whole(text: str) -> int | Decimal | Unfit:
    return int(text) if len(text) <= DIGITS_MAXIMUM else _number(text)


JSON = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_float=_number, parse_constant=Unfit)


def json_value(text: str) -> Any:
    """What a JSON text means, with Unfit in the place of what has no meaning. Raises: ValueError if it is not JSON."""
    try:
        return JSON.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def jsonb_text(value: Any, depth: int = DEPTH_MAXIMUM) -> str:
    """The text that PostgreSQL makes of a jsonb. Raises: ValueError for what it can't hold."""
    if isinstance(value, Unfit) or not depth:
        raise ValueError("no jsonb")
    if isinstance(value, Decimal):
        return f"{value.copy_abs() if value.is_zero() else value:f}"
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
        return f"{{{', '.join(f'{jsonb_text(name)}: {jsonb_text(value[name], depth - 1)}' for name in names)}}}"
    if isinstance(value, list):
        return f"[{', '.join(jsonb_text(one, depth - 1) for one in value)}]"
    if isinstance(value, str):
        value.encode()
        if "\x00" in value:
            raise ValueError("no jsonb")
    return json.dumps(value, ensure_ascii=False)
