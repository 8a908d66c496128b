"""`make schemas`: writes the JSON Schema of each new message version, and the AsyncAPI document.

A schema that was written once is released: it is compared, never overwritten.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from contracts.asyncapi import asyncapi_document
from contracts.json_schemas import json_schemas

DIRECTORY = Path(__file__).parents[1] / "contracts" / "schemas"
ASYNCAPI = "asyncapi.json"


class ReleasedSchemaError(Exception):
    """A released message version has changed. Recovery: undo the change, or give it a new version."""


def rendered(document: Mapping[str, Any]) -> str:
    """A document as its file holds it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def current_asyncapi() -> str:
    """The AsyncAPI document of this build, as its file holds it."""
    return rendered(asyncapi_document(json.loads((files("infra") / "topology.json").read_text(encoding="utf-8"))))


def require_unchanged(directory: Path) -> None:
    """Compare with what is released. Raises: ReleasedSchemaError, naming each version that differs."""
    schemas = {directory / f"{kind}.json": rendered(schema) for kind, schema in json_schemas().items()}
    changed = [path.stem for path, text in schemas.items() if path.exists() and path.read_text(encoding="utf-8") != text]
    if changed:
        raise ReleasedSchemaError(
            f"the model of {', '.join(changed)} is no longer what was released; give it a new version: add the changed model "
            "beside the old type, and an upcast from the old document to the new one, in contracts/messages.py"
        )


def write_schemas(directory: Path) -> list[str]:
    """Write what is new, and the AsyncAPI document; the names of the files that changed. Raises: ReleasedSchemaError."""
    require_unchanged(directory)
    wanted = {f"{kind}.json": rendered(schema) for kind, schema in json_schemas().items()} | {ASYNCAPI: current_asyncapi()}
    written = []
    for name, text in wanted.items():
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            written.append(name)
    return written


def main() -> None:
    """Say what was written; a released schema that changed is one sentence and status 1."""
    try:
        written = write_schemas(DIRECTORY)
    except ReleasedSchemaError as error:
        sys.exit(str(error))
    print("\n".join(f"wrote {name}" for name in written) or "every schema is up to date")


if __name__ == "__main__":
    main()
