"""The source part of a contract's document: a copy of a catalog, which `starlift pull` writes; or data sets."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from contracts.dataset_document import ApiDocument, Delivered, FileDocument, RequestDocument
from contracts.datasets import Dataset
from contracts.document_types import Closed, Names, SqlName, TypeName

NOT_NULL = " not null"
_NOT_OF_DATASETS = {  # each with the reason, and what to do
    "schema": "it comes from the drop zone or an API; remove it",
    "table": "its name here is that of its folder in the drop zone; remove it",
    "row_id": "its rows are told apart by a key; declare it as `key`",
    "full": "`contents: snapshot` says that a delivery has every row; remove it",
    "foreign_keys": "data sets are not joined, since they have no common snapshot; remove it, and let a fact refer to a "
    "dimension by `references`",
}


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
    """A table of the source as `starlift pull` found it; or a data set, as a person declares it."""

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
    file: FileDocument | None = Field(None, description="how its rows are delivered as files")
    request: RequestDocument | None = Field(None, description="how its rows are asked of the source's `api`")

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

    @model_validator(mode="before")
    @classmethod
    def _without_options_of_a_database(cls, value: Any) -> Any:
        if isinstance(value, dict) and ("file" in value or "request" in value):
            for option, why in _NOT_OF_DATASETS.items():
                if option in value:
                    raise ValueError(f"`{option}` is for tables of a database, not for a data set: {why}")
            if "key" not in value:
                raise ValueError("`key` is missing: the columns that tell its records apart")
        return value

    @model_validator(mode="after")
    def _some_key(self) -> SourceTableDocument:
        if not self.key:
            raise ValueError("`key` is missing; if its rows have none, write `row_id: row_id`")
        return self

    @model_validator(mode="after")
    def _of_one_kind(self) -> SourceTableDocument:
        if self.file is not None and self.request is not None:
            raise ValueError("a data set has either `file` or `request`; remove one")
        for option, column in (self.delivered.named if self.delivered is not None else {}).items():
            if column not in self.columns:
                raise ValueError(f"`{option}` names '{column}', which is not one of its columns")
        return self

    @property
    def delivered(self) -> Delivered | None:
        """How its rows are delivered; None: it is a table of a database."""
        return self.file or self.request

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that are read whatever the star is made of."""
        return (*self.key, *(self.delivered.named.values() if self.delivered is not None else ()))

    @property
    def links(self) -> dict[tuple[str, ...], str]:
        """The tables to whose key its columns refer, by these columns."""
        return {tuple(part.strip() for part in on.split(",")): target for on, target in self.foreign_keys.items()}


class SourceDocument(Closed):
    """The source's catalog, as far as the star needs it, written by `starlift pull`; or its data sets."""

    api: ApiDocument | None = Field(None, description="the HTTP API that all of its tables ask, each by its `request`")
    tables: dict[SqlName, SourceTableDocument]

    @model_validator(mode="after")
    def _of_one_kind(self) -> SourceDocument:
        for name, table in self.tables.items():
            if self.api is None and table.request is not None:
                raise ValueError(f"'{name}' has a `request`, but the source has no `api` that answers it; add it")
            if self.api is not None and table.request is None:
                raise ValueError(f"'{name}' has no `request`, which every table of a source with an `api` needs; add it")
        return self

    def dataset(self, table: str) -> Dataset | None:
        """How the rows of one of its tables are delivered; None: it is a table of a database."""
        entry = self.tables[table]
        if entry.delivered is None:
            return None
        request = entry.request.request(self.api.api) if entry.request is not None and self.api is not None else None
        return Dataset(entry.delivered.form, entry.delivered.contents, entry.delivered.version, request)
