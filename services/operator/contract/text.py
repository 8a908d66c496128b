"""Writing a contract's document: compact, the same text for the same content, and read back as what was written. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

COMMENT_WIDTH = 120
# Words that YAML 1.2, or an older tool, takes for something else than a text.
_CONSTANTS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})
_PLAIN = re.compile(r"[^\W\d](?:[\w.$/-]| (?! ))*")
_PLAIN_IN_A_BLOCK = re.compile(r"[^\W\d](?:[\w.$/()\[\],'-]| (?! ))*")  # where commas and brackets mean nothing
_OPTIONS = ("file", "request", "schema", "table", "full", "row_id", "key")  # of a table of the source, in this order
_ESCAPES = {'"': '\\"', "\\": "\\\\"}


def scalar(text: str, *, in_flow: bool = False) -> str:
    """A text, quoted only where it would be read as something else; `in_flow`: between brackets or braces."""
    plain = _PLAIN if in_flow else _PLAIN_IN_A_BLOCK
    if plain.fullmatch(text) and text.isprintable() and not text.endswith(" ") and text.lower() not in _CONSTANTS:
        return text
    signs = (_ESCAPES.get(sign, sign if sign.isprintable() else f"\\U{ord(sign):08x}") for sign in text)
    return f'"{"".join(signs)}"'


def flow(value: object) -> str:
    """A text, a whole number, true, false or None, a list of these, or a mapping of words to them, in one line."""
    match value:
        case None:
            return "null"
        case bool() | int():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{_word(name)}: {flow(one)}" for name, one in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(flow(one) for one in value) + "]"
        case _:
            return scalar(str(value), in_flow=True)


def _word(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else scalar(name, in_flow=True)


def source_text(part: Mapping[str, Any]) -> str:
    """The source part of a document, from the line `source:` to its end."""
    tables: Mapping[str, Mapping[str, Any]] = part.get("tables") or {}
    lines = ["source:", *([f"  api: {flow(part['api'])}"] if "api" in part else []), "  tables:" if tables else "  tables: {}"]
    for name, table in tables.items():
        lines.append(f"    {scalar(name)}:")
        lines += [f"      {word}: {flow(table[word])}" for word in _OPTIONS if word in table]
        lines.append("      columns:")
        lines += _entries(table["columns"], indent=8)
        if table.get("foreign_keys"):
            lines += ["      foreign_keys:", *_entries(table["foreign_keys"], indent=8)]
    return "\n".join(lines) + "\n"


def sources_text(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The same for several sources, by name, from the line `sources:` to its end."""
    lines = ["sources:"]
    for name, part in parts.items():
        lines += [f"  {scalar(name)}:", *(f"  {line}" for line in source_text(part).splitlines()[1:])]
    return "\n".join(lines) + "\n"


def star_table_lines(name: str, entry: Mapping[str, Any], comments: Iterable[str] = ()) -> Iterator[str]:
    """A table of the star, with comments above its columns."""
    yield f"  {scalar(name)}:"
    for word, value in entry.items():
        if isinstance(value, Mapping):
            for comment in comments:
                yield from comment_lines(comment, indent=4)
            yield f"    {word}:"
            yield from _entries(value, indent=6)
        else:
            yield f"    {word}: {scalar(value) if isinstance(value, str) else flow(value)}"


def comment_lines(text: str, *, indent: int = 0) -> Iterator[str]:
    """A text that may hold anything, as comments of at most COMMENT_WIDTH signs where its words permit."""
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    width = COMMENT_WIDTH - indent - 2
    for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
        yield f"{' ' * indent}# {line}"


def _entries(entries: Mapping[str, Any], *, indent: int) -> Iterator[str]:
    for name, value in entries.items():
        written = "" if value is None else f" {scalar(value) if isinstance(value, str) else flow(value)}"
        yield f"{' ' * indent}{scalar(name)}:{written}"
