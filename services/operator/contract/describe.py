"""What a contract's star contains, for analysts and their tools: tables, columns, and where each comes from. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from pydantic import BaseModel

from contracts.contract import Contract
from contracts.expression_parts import columns_read
from contracts.expressions import Expression
from contracts.origins import CalendarPart, Computed, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import Calendar, Column, Dimension, Fact, WarehouseTable
from contracts.warehouse import as_of_name, current_name, history_name

_NO_WORD = re.compile(r"\W+")


class DescribedColumn(BaseModel, frozen=True):
    """A business column of a star table."""

    name: str
    type: str  # in the warehouse
    nullable: bool
    is_key: bool  # a part of the business key
    references: str | None  # the dimension, or the calendar, whose key it holds
    comes_from: str  # in words, down to columns of the source


class DescribedTable(BaseModel, frozen=True):
    """A table of the star, and the view that analysts read."""

    name: str
    kind: str  # calendar, dimension or fact
    read: str  # the table itself or, of a fact, the view of its current rows
    views: tuple[str, ...]  # others
    text: str  # what a row is
    columns: tuple[DescribedColumn, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The business key."""
        return tuple(column.name for column in self.columns if column.is_key)


class DescribedStar(BaseModel, frozen=True):
    """A star."""

    name: str
    warehouse_schema: str
    tables: tuple[DescribedTable, ...]


def describe(contract: Contract) -> DescribedStar:
    """The tables of the star, in the contract's order."""
    tables = tuple(_table(contract, table) for table in contract.warehouse_tables)
    return DescribedStar(name=contract.name, warehouse_schema=contract.warehouse_schema, tables=tables)


def _table(contract: Contract, table: WarehouseTable) -> DescribedTable:
    columns = tuple(
        DescribedColumn(
            name=column.name,
            type=column.type.sql,
            nullable=column.nullable,
            is_key=column.name in table.key,
            references=column.references,
            comes_from=_origin(table, column),
        )
        for column in table.columns
    )
    read, views, text = table.name, list[str](), "One row for each date that a fact refers to."
    match table:
        case Calendar():
            pass
        case Dimension():
            text = f"The latest state of '{table.source}': one row for each; `_deleted_at` says when a row was found deleted."
            views += [history_name(table.name)] if table.history else []
        case Fact():
            read, text = current_name(table.name), f"The rows of '{table.source}', in their newest version."
            views += [as_of_name(table.name)] if table.as_of else []
    if not isinstance(table, Calendar):
        text += f" From the source '{source}'." if (source := contract.source_of(table)) is not None else ""
        text += f" A filter over {_listed(table, table.where)} leaves out some rows." if table.where is not None else ""
    kind = type(table).__name__.lower()
    return DescribedTable(name=table.name, kind=kind, read=read, views=tuple(views), text=text, columns=columns)


def _origin(table: WarehouseTable, column: Column) -> str:
    """Where a column comes from, in words."""
    origin = column.origin
    match origin:
        case FromSource() | FromLookup():
            text = _path(table, origin.lookup, origin.column)
            return text if origin.absent is None else f"{text}, '{origin.absent}' if absent"
        case DateOf() | TimeOf():
            what = "date" if isinstance(origin, DateOf) else "time"
            other = "" if origin.absent is None else f", or of {origin.absent} if that is NULL"
            return f"the {what} of {_path(table, origin.lookup, origin.column)}, in UTC{other}"
        case ParsedDate():
            return f"the date that {_path(table, origin.lookup, origin.column)} spells"
        case CurrencyNameOf():
            return f"the ISO 4217 name of {_path(table, origin.lookup, origin.column)}"
        case CalendarPart():
            return f"the {origin.part.replace('_', ' ')}"
        case Computed():
            return f"computed from {_listed(table, origin.expression) or 'a constant'}"


def _listed(table: WarehouseTable, expression: Expression) -> str:
    return ", ".join(_path(table, one.lookup, one.name) for one in columns_read(expression))


def _path(table: WarehouseTable, lookup: str | None, column: str) -> str:
    """A column of the source, with the joins that lead to its table."""
    if isinstance(table, Calendar):  # whose columns are parts of its own date
        return column
    steps = [] if lookup is None else [f"{join.start}.{'+'.join(join.on)}" for join in table.paths[lookup]]
    return " → ".join([*steps, f"{table.table_of(lookup)}.{column}"])


def as_markdown(star: DescribedStar) -> str:
    """A data dictionary."""
    lines = [f"# {star.name}", "", f"The star, in the schema `{star.warehouse_schema}`."]
    for table in star.tables:
        lines += ["", f"## {table.name}", "", f"{table.text} Read `{table.read}`{_also(table)}.", ""]
        lines += ["| column | type | comes from |", "|---|---|---|"]
        for column in table.columns:
            notes = ["key"] if column.is_key else []
            notes += [f"refers to {column.references}"] if column.references else []
            notes += ["may be NULL"] if column.nullable else []
            kind = f"{column.type} ({', '.join(notes)})" if notes else column.type
            lines.append("| " + " | ".join(_cell(text) for text in (f"`{column.name}`", kind, column.comes_from)) + " |")
    return "\n".join(lines) + "\n"


def _also(table: DescribedTable) -> str:
    return "".join(f", or `{view}`" for view in table.views)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def as_dbt(star: DescribedStar) -> str:
    """A file of dbt sources, with a test for each key, NOT NULL column and reference."""
    tables = [_dbt_table(star, table) for table in star.tables]
    source = {"name": star.name, "schema": star.warehouse_schema, "tables": tables}
    return yaml.safe_dump({"version": 2, "sources": [source]}, sort_keys=False, allow_unicode=True, width=120)


def _dbt_table(star: DescribedStar, table: DescribedTable) -> dict[str, object]:
    columns = []
    for column in table.columns:
        tests: list[object] = [] if column.nullable else ["not_null"]
        tests += ["unique"] if table.key == (column.name,) else []
        if column.references is not None:
            (field,) = next(one.key for one in star.tables if one.name == column.references)
            tests.append({"relationships": {"to": f"source('{star.name}', '{column.references}')", "field": field}})
        entry: dict[str, object] = {"name": column.name, "description": column.comes_from, "data_type": column.type}
        columns.append(entry | ({"data_tests": tests} if tests else {}))
    return {"name": table.name, "identifier": table.read, "description": table.text, "columns": columns}


def as_diagram(star: DescribedStar) -> str:
    """An entity-relationship diagram, in Mermaid."""
    return "\n".join(["erDiagram", *(line for table in star.tables for line in _entity(table))]) + "\n"


def _entity(table: DescribedTable) -> Iterator[str]:
    yield f"    {_word(table.name)} {{"
    for column in table.columns:
        marks = ", ".join(mark for mark, holds in (("PK", column.is_key), ("FK", column.references is not None)) if holds)
        yield f"        {_word(column.type)} {_word(column.name)} {marks}".rstrip()
    yield "    }"
    for column in table.columns:
        if column.references is not None:
            yield f'    {_word(column.references)} ||--o{{ {_word(table.name)} : "{column.name.replace(chr(34), "")}"'


def _word(text: str) -> str:
    """A name or a type as Mermaid takes it: letters, digits and underscores, and a letter first."""
    word = _NO_WORD.sub("_", text).strip("_")
    return word if word[:1].isalpha() else f"_{word}"
