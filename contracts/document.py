"""A contract as the document that a person writes: YAML, of which nothing is ever run.

Its `star` part says what the star is made of. Its `source` part is a copy of the source's catalog: `starlift pull` writes
it, and it is kept in version control like a lock file, so that a change of the source shows as a difference.

contracts/resolved.py makes a Contract of it. The descriptions here are the reference (contracts/schemas/contract.json).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue

from contracts.calendar import CALENDAR_PARTS
from contracts.column_types import ColumnType
from contracts.tables import ContractError
from contracts.type_names import column_type
from contracts.warehouse import OWN_SCHEMA

NOT_NULL = " not null"
_KINDS = ("calendar", "dimension", "fact")


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


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _texts(value: object) -> object:
    """One text stands for a list of one."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


SqlName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\x00]+$")]
SqlPath = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]+$")]
_Written = BeforeValidator(lambda value: str(value).lower() if isinstance(value, int) else value)  # YAML reads 1 and true
Sql = Annotated[str, Field(min_length=1, max_length=2000), _Written, WithJsonSchema({"type": ["string", "integer", "boolean"]})]
Scalar = Sql  # also a text that YAML may read as something else
Names = Annotated[
    tuple[SqlName, ...],
    BeforeValidator(_texts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
TypeName = Annotated[
    ColumnType,
    BeforeValidator(lambda value: column_type(value) if isinstance(value, str) else value),
    WithJsonSchema({"type": "string"}),
]


class SourceColumnDocument(_Closed):
    """A column of a source table: its type, and `not null` unless it may be NULL."""

    type: TypeName
    nullable: bool

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError("a column's type is a text, such as 'numeric(10,2) not null'")  # noqa: TRY004 (pydantic wants it)
        return {"type": value.removesuffix(NOT_NULL), "nullable": not value.endswith(NOT_NULL)}

    @classmethod
    def __get_pydantic_json_schema__(cls, _core: object, _handler: object) -> dict[str, Any]:
        """What an editor accepts: the text."""
        return {"type": "string", "description": cls.__doc__}


class SourceTableDocument(_Closed):
    """A table of the source as `starlift pull` found it."""

    schema_: SqlName | None = Field(None, alias="schema", description="the schema that holds it, if it is not `source_schema`")
    table: SqlName | None = Field(None, description="its name there, if another schema has a table of that name")
    full: bool = Field(
        False,  # noqa: FBT003 (pydantic)
        description="every run reads all of it: a view, or a table whose `key` you declare, since no index guarantees it",
    )
    key: Names = Field(
        (), description="its primary key, or the columns of a unique index on NOT NULL columns; with `full`, as you declare it"
    )
    row_id: SqlName | None = Field(
        None,
        description="instead of `key`, for rows that have none: the name of a column that tells them apart, a hash of "
        "what the star reads of them; every run reads all of them, and only a fact without `version` is made of them",
    )
    columns: dict[SqlName, SourceColumnDocument] = Field(description="every column, whether the star needs it or not")
    foreign_keys: dict[str, SqlName] = Field(
        default_factory=dict,
        description="the tables to whose key its columns refer: `customer_id: customer`, `region, number: account`",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_row_id(cls, value: Any) -> Any:
        """A row id is the key, and a column like the others."""
        name = value.get("row_id") if isinstance(value, dict) else None
        if not isinstance(name, str):
            return value
        columns = value.get("columns")
        if "key" in value:
            raise ValueError("`key` and `row_id` exclude each other")
        if isinstance(columns, dict) and name in columns:
            raise ValueError(f"it has a column '{name}'; call the row id otherwise")
        row_id = {name: f"uuid{NOT_NULL}"}
        return value | {"full": True, "key": name, "columns": row_id | columns if isinstance(columns, dict) else columns}

    @model_validator(mode="after")
    def _some_key(self) -> SourceTableDocument:
        if not self.key:
            raise ValueError("`key` is missing; if its rows have none, write `row_id: row_id`")
        return self

    @property
    def links(self) -> dict[tuple[str, ...], str]:
        """The tables to whose key its columns refer, by these columns."""
        return {tuple(part.strip() for part in on.split(",")): target for on, target in self.foreign_keys.items()}


class SourceDocument(_Closed):
    """The source's catalog, as far as the star needs it. Written by `starlift pull`."""

    tables: dict[SqlName, SourceTableDocument]


class Column(_Closed):
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


class Join(_Closed):
    """A join to the key of another table, where no foreign key says it, or where one table is joined by a name of its own."""

    table: SqlName = Field(description="the other table")
    on: Names = Field(description="the columns that hold its key, in the order of the key")
    via: SqlName | None = Field(None, description="the join from whose table it starts; otherwise from the table itself")


class _Table(_Closed):
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


class CalendarTable(_Closed):
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


class Document(_Closed):
    """A contract: a source and the star that is made of it."""

    format: Literal[1] = 1
    name: SqlName = Field(description="of the star: a warehouse remembers it, and refuses another")
    source_schema: SqlName = Field("public", description="the schema that holds the tables of the source")
    warehouse_schema: SqlName = Field("public", description="the schema in which the star is created")
    ledger_schema: SqlName = Field(
        OWN_SCHEMA, description="the schema of Starlift's own tables; each star of one warehouse database needs its own"
    )
    carry: Names = Field((), description="tables of which every column leaves the source, also those that come later (as text)")
    star: dict[SqlName, StarTable] = Field(description="the tables of the star, in the order in which they are loaded")
    source: SourceDocument
