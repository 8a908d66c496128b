"""`make schemas`: write the JSON Schemas of new message versions, failure records and contracts, and the AsyncAPI document.

These documents are what others may build upon without our code. A schema that was written once is released: it is compared and
never overwritten. A schema holds what a document must be, not our words about it: a better docstring is not a new version.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from contracts.document import Document
from contracts.failure import FailureRecord
from contracts.messages import MESSAGE_MODELS, message_type
from tools.asyncapi import FAILURE_RECORD_TYPE, asyncapi_document

CHECKOUT = Path(__file__).parents[1]
DIRECTORY = CHECKOUT / "contracts" / "schemas"
ASYNCAPI = "asyncapi.json"
CONTRACT = "contract.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_WORDS = frozenset({"title", "description"})
_BY_NAME = frozenset({"properties", "$defs"})  # their keys are names of ours, not keywords

JsonSchema = dict[str, Any]


class ReleasedSchemaError(Exception):
    """A released message version has changed. Recovery: undo the change, or give it a new version."""


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


def _without_words(value: Any) -> Any:
    match value:
        case dict():
            return {
                key: {name: _without_words(entry) for name, entry in value[key].items()}
                if key in _BY_NAME
                else _without_words(value[key])
                for key in value
                if key not in _WORDS
            }
        case list():
            return [_without_words(entry) for entry in value]
        case _:
            return value


def current_asyncapi() -> str:
    """The AsyncAPI document of this build, as its file holds it."""
    return _rendered(asyncapi_document(json.loads((CHECKOUT / "infra" / "topology.json").read_text(encoding="utf-8"))))


def contract_schema() -> str:
    """The schema by which editors check and complete a contract, as its file holds it, with our words."""
    return _rendered({"$schema": DIALECT, **Document.model_json_schema(by_alias=True)})


def require_unchanged(directory: Path) -> None:
    """Compare this build's schemas with the released ones. Raises: ReleasedSchemaError, naming each version that differs."""
    schemas = {directory / f"{kind}.json": _rendered(schema) for kind, schema in json_schemas().items()}
    changed = [path.stem for path, text in schemas.items() if path.exists() and path.read_text(encoding="utf-8") != text]
    if changed:
        raise ReleasedSchemaError(
            f"the model of {', '.join(changed)} differs from the released schema; give it a new version: add the changed model "
            "beside the old type, and an upcast from the old document to the new one, in contracts/messages.py"
        )


def write_schemas(directory: Path) -> list[str]:
    """Write new schemas and the AsyncAPI document; return the names of changed files. Raises: ReleasedSchemaError."""
    require_unchanged(directory)
    wanted = {f"{kind}.json": _rendered(schema) for kind, schema in json_schemas().items()}
    wanted |= {ASYNCAPI: current_asyncapi(), CONTRACT: contract_schema()}
    written = []
    for name, text in wanted.items():
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            written.append(name)
    return written


def _rendered(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Print what was written; a released schema that changed is one sentence and exit code 1."""
    try:
        written = write_schemas(DIRECTORY)
    except ReleasedSchemaError as error:
        sys.exit(str(error))
    print("\n".join(f"wrote {name}" for name in written) or "every schema is up to date")


if __name__ == "__main__":
    main()
