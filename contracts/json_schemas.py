"""The JSON Schema of each message version, and of the failure record: what others may build upon without our code.

A schema holds what a document must be, not our words about it: a better docstring is no new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from contracts.failure import FailureRecord
from contracts.messages import MESSAGE_MODELS, message_type

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FAILURE_RECORD_TYPE = "starlift.failure_record.v1"
_WORDS = frozenset({"title", "description"})
_BY_NAME = frozenset({"properties", "$defs"})  # their keys are names of ours, not keywords

JsonSchema = dict[str, Any]


def json_schemas() -> dict[str, JsonSchema]:
    """Every schema of this build, by type."""
    models: dict[str, type[BaseModel]] = {message_type(model): model for model in MESSAGE_MODELS}
    models[FAILURE_RECORD_TYPE] = FailureRecord
    return {kind: json_schema(model) for kind, model in models.items()}


def json_schema(model: type[BaseModel]) -> JsonSchema:
    """What a receiver accepts as `model`.

    A constant has a default in the model and is required here: CloudEvents demands `specversion` and `type` in every document.
    """
    schema = _without_words(model.model_json_schema())
    constants = [name for name, entry in schema["properties"].items() if "const" in entry]
    schema["required"] = sorted({*schema.get("required", ()), *constants})
    return {"$schema": DIALECT, **schema}


def _without_words(schema: Mapping[str, Any]) -> JsonSchema:
    return {
        key: {name: _without_words(entry) for name, entry in value.items()} if key in _BY_NAME else _stripped(value)
        for key, value in schema.items()
        if key not in _WORDS
    }


def _stripped(value: Any) -> Any:
    match value:
        case dict():
            return _without_words(value)
        case list():
            return [_stripped(entry) for entry in value]
        case _:
            return value
