"""The codecs of booleans and texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from contracts.column_types import is_same_type
from contracts.tables import UNKNOWN
from shared.codecs.codec import ASCII_SPACE, Codec
from shared.codecs.json_text import json_value, jsonb_text
from shared.codecs.numeric import Numeric, decimal_text, delivered_decimal
from shared.source_types import SourceType
from shared.sql import literal

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:(-?)[0-9a-fA-F]{4})(?:\1[0-9a-fA-F]{4}){2}\1[0-9a-fA-F]{12}")
_BYTES = re.compile(r"\\x(?:[0-9a-fA-F]{2})*")
_TRUE, _FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")
_BOOLEANS = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
# Types that travel as text and whose every value is short.
_SHORT = frozenset({"uuid", "double precision", "real", "interval", "money", "inet", "cidr", "macaddr", "macaddr8", "oid"})


class Boolean(Codec):
    """BOOLEAN."""

    accepted = re.compile(r"boolean")
    frame = file = staged = "boolean"
    stand_in = "false"
    read_sql = "{0}::integer"
    key_form = "true or false"

    def delivered(self, text: str) -> Any:
        found = _BOOLEANS.get(text.strip(ASCII_SPACE).lower() if text.isascii() else "")
        if found is None:
            raise ValueError(text)
        return found

    def spelled_key(self, value: Any) -> int | str:
        return "true" if value else "false"

    def parsed_key(self, text: str) -> int | str:
        if text not in {"true", "false"}:
            raise ValueError(text)
        return text

    def binary(self, values: Any) -> list[Any]:
        return [values.astype("u1")]

    def shown(self, value: Any) -> Any:
        return bool(value)


class Text(Codec):
    """TEXT, also for a type that the warehouse lacks."""

    frame = file = "object"
    staged = "text"
    read_sql = "{0}::text"

    def delivered_all(self, texts: Sequence[str]) -> Sequence[Any]:
        self.parsed_key("".join(texts))
        return texts

    @property
    def is_wide(self) -> bool:
        return self.type.name not in _SHORT

    def sought(self, value: Any) -> str:
        return literal(value)

    @property
    def stand_in(self) -> str | None:
        unknown = literal(UNKNOWN)
        return f"left({unknown}, {self.type.length})" if self.type.length else unknown

    def accepts(self, found: SourceType) -> bool:
        return found.is_enum or found.is_string or found.is_foreign

    def byte_count(self, value: str) -> str:
        return f"octet_length({value}::text)"


class Enum(Text):
    """ENUM: its labels are texts in the star."""

    accepted = re.compile(r"text|character varying(\(\d+\))?")
    is_wide = False

    def accepts(self, found: SourceType) -> bool:
        return found.is_enum or self.accepted.fullmatch(found.name) is not None


class Verbatim(Text):
    """VERBATIM: the text that the source makes of a value, and that the warehouse reads again."""

    stand_in = None

    @property
    def key_form(self) -> str:
        return Numeric.key_form if self.type.is_decimal else "a uuid"  # no other type of this kind may be a key

    def key_text(self, value: str) -> str:
        return f"trim_scale({value})::text" if self.type.is_decimal else super().key_text(value)

    def accepts(self, found: SourceType) -> bool:
        return any(name and is_same_type(name, self.type.name) for name in (found.name, found.unbounded, found.domain))

    def byte_count(self, value: str) -> str:
        if self.type.name == "bytea":
            return f"(2 * octet_length({value})::bigint + 2)"
        return Codec.byte_count(self, value)

    def loaded(self, value: str) -> str:
        return f"{value}::{self.type.sql}"

    @property
    def delivered_form(self) -> str:
        known = {"uuid": "a uuid", "jsonb": "JSON that PostgreSQL can hold", "bytea": "bytes as \\x and hexadecimal digits"}
        return f"a {self.type.name}" if self.type.is_decimal else known.get(self.type.name, "of a type that can be delivered")

    def delivered_all(self, texts: Sequence[str]) -> Sequence[Any]:
        return Codec.delivered_all(self, texts)

    def delivered(self, text: str) -> Any:
        """See Codec. A number without the zeros at its end, as a key has it."""
        if self.type.is_decimal:
            return delivered_decimal(text.strip(ASCII_SPACE), self.type.name)
        if self.type.name == "jsonb":
            return jsonb_text(json_value(text))
        if self.type.name == "uuid" and _UUID.fullmatch(text):
            return str(UUID(text))
        if self.type.name == "bytea" and _BYTES.fullmatch(text):
            return text.lower()
        raise ValueError(text)

    def parsed_key(self, text: str) -> int | str:
        return decimal_text(text) if self.type.is_decimal else str(UUID(text))
