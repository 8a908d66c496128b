"""A star while it is being proposed: columns under free names, what was left out and why, and the document. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.calendar import CALENDAR_PARTS
from contracts.document import Document, DocumentError
from contracts.paths import quoted_step
from contracts.resolved import resolved
from services.operator.contract.catalog import free_name
from services.operator.contract.source_part import Part
from services.operator.contract.text import comment_lines, scalar, source_text, star_table_lines

CALENDAR = "dim_date"
_CALENDAR_ENTRY = {"calendar": {"date_id": "date"} | {part: part for part in CALENDAR_PARTS if part != "date"}}


@dataclass(slots=True)
class TableDraft:
    """A fact or a dimension."""

    kind: str  # 'fact' or 'dimension', as the document calls it
    base: str  # the table of the source
    remarks: list[str]
    columns: dict[str, Any] = field(default_factory=dict)  # as in the document
    version: list[str] = field(default_factory=list)
    left_out: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # columns by the reason

    def add(self, wish: str, origin: Mapping[str, Any]) -> str:
        """Add a column under a free name like `wish`, which may not begin with '_'; return the name."""
        name = free_name(wish.lstrip("_") or "column", self.columns)
        match origin:
            case {"from": path, **more} if not more:
                self.columns[name] = None if path == path_of(name) else path
            case {"from": path, **more} if path == path_of(name):
                self.columns[name] = more
            case _:
                self.columns[name] = dict(origin)
        return name

    def forget(self, dimension: str) -> None:
        """Keep the columns that refer to a dimension, without their references."""
        for column, origin in self.columns.items():
            if isinstance(origin, dict) and origin.get("references") == dimension:
                del origin["references"]
                self.columns[column] = origin or None

    @property
    def entry(self) -> dict[str, Any]:
        """The table as the document holds it."""
        version = {"version": self.version} if self.version else {}
        return {self.kind: self.base} | version | {"columns": self.columns}

    @property
    def comments(self) -> Iterator[str]:
        """What a person should know about it."""
        yield from self.remarks
        for reason, columns in self.left_out.items():
            yield f"Left out: {', '.join(columns)}: {reason}."


@dataclass(slots=True)
class Draft:
    """A document."""

    name: str
    schema: str
    tables: dict[str, TableDraft]  # of the star, in load order, without the calendar
    source: Part
    remarks: list[str]  # about the whole

    def settle(self) -> None:
        """Leave out whatever contradicts itself, with the reason."""
        while True:
            try:
                resolved(Document.model_validate(self._data()))
            except DocumentError as error:
                if not [True for problem in error.problems if self._drop(problem.place, problem.text)]:
                    raise
            else:
                return

    def _drop(self, place: tuple[str, ...], reason: str) -> bool:
        """Leave out the column or the table that a problem is about; return whether it was still there."""
        match place:
            case ("star", table, "columns", column) if table in self.tables and column in self.tables[table].columns:
                draft = self.tables[table]
                del draft.columns[column]
                draft.left_out[reason].append(column)
                draft.version = [] if column in draft.version else draft.version
                return True
            case ("star", table, *_):
                names = [table] if table in self.tables else []
            case _:  # a table of the source, or a name that holds quotes
                base = place[2] if place[:2] == ("source", "tables") else None
                names = [name for name, one in self.tables.items() if one.base == base or f"'{name}" in reason]
        for name in names:
            del self.tables[name]
            self.remarks.append(f"Left out: {name}: {reason}.")
            for draft in self.tables.values():
                draft.forget(name)
        return bool(names)

    def _data(self) -> dict[str, Any]:
        origins = [origin for table in self.tables.values() for origin in table.columns.values() if isinstance(origin, dict)]
        has_dates = any(origin.get("references") == CALENDAR for origin in origins)
        star = {CALENDAR: _CALENDAR_ENTRY} if has_dates else {}
        star |= {name: table.entry for name, table in self.tables.items()}
        head = {} if self.schema == "public" else {"source_schema": self.schema}
        return {"name": self.name, **head, "star": star, "source": {"tables": self.source}}

    def text(self) -> str:
        """The document, with comments."""
        lines = [line for remark in self.remarks for line in comment_lines(remark)]
        data = self._data()
        lines += [f"{word}: {scalar(value)}" for word, value in data.items() if isinstance(value, str)] + ["", "star:"]
        for number, (name, entry) in enumerate(data["star"].items()):
            lines += [""] if number else []
            lines += star_table_lines(name, entry, self.tables[name].comments if name in self.tables else ())
        return "\n".join([*lines, "", ""]) + source_text(data["source"])


def path_of(*names: str) -> str:
    """A path of the document, of which the steps are quoted only where they have to be."""
    return ".".join(quoted_step(name) if {".", '"'}.intersection(name) else name for name in names)
