"""A contract as the document that a person writes: YAML, of which nothing is ever run.

Its `star` part says what the star is made of. Its `source` part is a copy of the source's catalog: `starlift pull` writes
it, and it is kept in version control like a lock file, so that a change of the source shows as a difference.

contracts/resolved.py makes a Contract of it. The descriptions here are the reference (contracts/schemas/contract.json).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue

from contracts.calendar import CALENDAR_PARTS
from contracts.datasets import Dataset
from contracts.document_types import Closed, Names, Scalar, Sql, SqlName, SqlPath, TypeName
from contracts.source_document import SourceDocument, SourceTableDocument
from contracts.tables import ContractError
from contracts.warehouse import OWN_SCHEMA

_KINDS = ("calendar", "dimension", "fact")


# Names of queues and of variables end with it.
SourceName = Annotated[str, Field(min_length=1, max_length=30, pattern=r"^[a-z][a-z0-9_]*$")]

Place = tuple[str, ...]  # the keys that lead to something in a document


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a document can't mean."""

    place: Place
    text: str


class DocumentError(ContractError):
    """A document is not a contract. Recovery: correct every problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{'.'.join(problem.place)}: {problem.text}" for problem in problems))
        self.problems = problems


class Column(Closed):
    """Where a column of the star comes from.

    Nothing at all: from the column of the same name. A text: from that column, of the table itself (`city_id`) or of a joined
    one (`city_id.city_name`: along a foreign key, which is named by its column, by the table that it leads to, or by a join).
    """

    ORIGINS: ClassVar[tuple[str, ...]] = ("from", "date_of", "time_of", "parsed_date", "currency_name_of", "sql")

    from_: SqlPath | None = Field(None, alias="from", description="the value of a column")
    date_of: SqlPath | None = Field(None, description="the date of a timestamp; of a timestamptz, in UTC")
    time_of: SqlPath | None = Field(None, description="the time of day of a timestamp; of a timestamptz, in UTC")
    parsed_date: SqlPath | None = Field(
        None, description="the date that a text spells as YYYY-MM-DD; any other text is quarantined"
    )
    currency_name_of: SqlPath | None = Field(
        None, description="the ISO 4217 name of a currency's code; any other is quarantined"
    )
    sql: Sql | None = Field(
        None,
        description="an expression over columns and paths, such as `quantity * unit_price`, whose value is stored as `type`; "
        "a value that does not fit is quarantined (docs/contracts.md lists what it may contain)",
    )
    absent: str | None = Field(
        None, description="what stands for NULL: a text; for `date_of` and `time_of`, another timestamp of the same row"
    )
    references: SqlName | None = Field(None, description="of a fact: the dimension, or the calendar, whose key it holds")
    type: TypeName | None = Field(None, description="the type in the star, where it is not that of the source")
    nullable: bool | None = Field(
        None, description="whether it may be NULL, where the source does not say; a NULL is else quarantined"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {} if value is None else {"from": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What an editor accepts: nothing, a text, or the options."""
        schema = handler(core)
        options = handler.resolve_ref_schema(schema)
        whole = dict(options)
        options.clear()
        options.update({"anyOf": [{"type": "null"}, {"type": "string"}, whole]})
        return schema

    @model_validator(mode="after")
    def _one_origin(self) -> Column:
        if len(self.origins) > 1:
            raise ValueError(f"it comes from one of {', '.join(self.ORIGINS)}, not from {' and '.join(self.origins)}")
        return self

    @property
    def origins(self) -> dict[str, str]:
        """The paths that it comes from, by the kind of origin: at most one."""
        given = {"from": self.from_} | {name: getattr(self, name) for name in self.ORIGINS[1:]}
        return {name: path for name, path in given.items() if path is not None}


class Join(Closed):
    """A join to the key of another table, where no foreign key says it, or where one table is joined by a name of its own."""

    table: SqlName = Field(description="the other table")
    on: Names = Field(description="the columns that hold its key, in the order of the key")
    via: SqlName | None = Field(None, description="the join from whose table it starts; otherwise from the table itself")


class _Table(Closed):
    columns: dict[SqlName, Column] = Field(description="the columns of the star, in their order, and where they come from")
    where: Sql | None = Field(None, description="a condition over its own columns: rows for which it is not true are left out")
    key: Names = Field((), description="the columns that hold the source's key; otherwise those that copy it")
    joins: dict[SqlName, Join] = Field(default_factory=dict, description="joins that columns may name")
    retired: Names = Field((), description="columns that left the contract and stay in the warehouse as they are")
    renamed: dict[SqlName, SqlName] = Field(
        default_factory=dict, description="columns that were called otherwise: the new name, and the old one"
    )


class DimensionTable(_Table):
    """The latest state of a table of the source: one row for each."""

    dimension: SqlName = Field(description="the table of the source")
    surrogate: SqlName | None = Field(
        None, description="a column for numbers that the warehouse gives the keys, and never changes; views of facts show them"
    )
    unknown: Scalar | None = Field(None, description="a key that facts hold where their reference is NULL, such as -1")
    history: bool = Field(
        default=False, description="whether every state that a run has seen is kept, and shown by a view with `valid_from`"
    )


class FactTable(_Table):
    """The history of a table of the source: one row for each of its rows and `version`, and a view of the newest ones."""

    fact: SqlName = Field(description="the table of the source")
    version: Names = Field((), description="the columns that tell versions apart; without them the newest row is kept")
    surrogate: SqlName | None = Field(None, description="a column for numbers that the warehouse gives the rows")
    as_of: Names = Field(
        (),
        description="the column with the time at which a view shows dimensions with history: a timestamp, a date, "
        "or a date and a time of day",
    )


class CalendarTable(Closed):
    """Every date that a fact refers to."""

    calendar: dict[SqlName, Literal[tuple(CALENDAR_PARTS)]] = Field(  # type: ignore[valid-type]  # they are known at run time
        description="the columns and the parts of a date that they hold; `date` is the key"
    )


def _kind(value: Any) -> str | None:
    kinds = [kind for kind in _KINDS if isinstance(value, dict) and kind in value]
    return f"a {kinds[0]}" if len(kinds) == 1 else None


StarTable = Annotated[
    Annotated[CalendarTable, Tag("a calendar")]
    | Annotated[DimensionTable, Tag("a dimension")]
    | Annotated[FactTable, Tag("a fact")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="a table of the star has one of `dimension`, `fact` and `calendar`",
    ),
]


class Document(Closed):
    """A contract: a source, or several, and the star that is made of them."""

    format: Literal[1] = 1
    name: SqlName = Field(description="of the star: a warehouse remembers it, and refuses another")
    source_schema: SqlName = Field("public", description="the schema that holds the tables of the source")
    warehouse_schema: SqlName = Field("public", description="the schema in which the star is created")
    ledger_schema: SqlName = Field(
        OWN_SCHEMA, description="the schema of Starlift's own tables; each star of one warehouse database needs its own"
    )
    carry: Names = Field((), description="tables of which every column leaves the source, also those that come later (as text)")
    star: dict[SqlName, StarTable] = Field(description="the tables of the star, in the order in which they are loaded")
    source: SourceDocument | None = Field(None, description="the catalog of the only source, whose name is a setting")
    sources: dict[SourceName, SourceDocument] = Field(
        default_factory=dict,
        description="instead of `source`: the catalogs of several sources, by name; a table of the star belongs to the source "
        "of the table it is made from, and meets those of others through `references` and in views, never by a join",
    )

    @model_validator(mode="after")
    def _some_source(self) -> Document:
        if (self.source is None) == (not self.sources):
            raise ValueError("a contract has either `source` or `sources`")
        names = [name for part in self.source_parts.values() for name in part.tables]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"two sources have a table '{repeated[0]}'; give one of them another name here, and its real one as `table`"
            )
        return self

    @property
    def source_parts(self) -> dict[str | None, SourceDocument]:
        """The catalog of each source, by its name; None: settings name it."""
        return {None: self.source} if self.source is not None else dict(self.sources.items())

    @cached_property
    def tables(self) -> dict[str, SourceTableDocument]:
        """The tables of every source."""
        return {name: table for part in self.source_parts.values() for name, table in part.tables.items()}

    def source_of(self, table: str) -> str | None:
        """The name of the source that has a table."""
        return next((source for source, part in self.source_parts.items() if table in part.tables), None)

    def dataset_of(self, table: str) -> Dataset | None:
        """How the rows of a table are delivered; None: it is a table of a database."""
        return self.source_parts[self.source_of(table)].dataset(table)

    def place_of(self, table: str) -> Place:
        """Where a table of a source is described."""
        source = self.source_of(table)
        return ("source", "tables", table) if source is None else ("sources", source, "tables", table)
