"""What every part of a contract's document is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from contracts.column_types import ColumnType
from contracts.type_names import column_type


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
