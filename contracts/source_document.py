"""The source part of a contract's document, a copy of a catalog that `starlift pull` writes; and types of both parts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from contracts.column_types import ColumnType
from contracts.type_names import column_type

NOT_NULL = " not null"


class Closed(BaseModel):
    """A part of a document: it has no field that is not declared, and no value is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _texts(value: object) -> object:
    """One text stands for a list of one."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


SqlName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\x00]+$")]
SqlPath = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]+$")]
Written = BeforeValidator(lambda value: str(value).lower() if isinstance(value, int) else value)  # YAML reads 1 and true
Sql = Annotated[str, Field(min_length=1, max_length=2000), Written, WithJsonSchema({"type": ["string", "integer", "boolean"]})]
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


class SourceColumnDocument(Closed):
    """A column of a source table: its type, and `not null` unless it may be NULL."""

    type: TypeName
    nullable: bool

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError("a column's type must be a text, such as 'numeric(10,2) not null'")  # noqa: TRY004 (pydantic wants it)
        return {"type": value.removesuffix(NOT_NULL), "nullable": not value.endswith(NOT_NULL)}

    @classmethod
    def __get_pydantic_json_schema__(cls, _core: object, _handler: object) -> dict[str, Any]:
        """What an editor accepts: the text."""
        return {"type": "string", "description": cls.__doc__}


class SourceTableDocument(Closed):
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
            raise ValueError(f"the table has a column '{name}'; give the row id another name")
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


class SourceDocument(Closed):
    """The source's catalog, as far as the star needs it. Written by `starlift pull`."""

    tables: dict[SqlName, SourceTableDocument]
