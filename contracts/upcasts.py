"""From a message of an earlier version to one of this build, as JSON documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# From a released type to the document of the next version of it.
UPCASTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "starlift.ingest_source.v1": lambda document: {**document, "type": "starlift.ingest_source.v2"},
    "starlift.batch_ingested.v1": lambda document: {**document, "type": "starlift.batch_ingested.v3"},
    "starlift.batch_remodelled.v1": lambda document: {**document, "type": "starlift.batch_remodelled.v4"},
    "starlift.batch_ingested.v2": lambda document: _without_key_lists(document, "starlift.batch_ingested.v3"),
    "starlift.batch_remodelled.v2": lambda document: _without_key_lists(document, "starlift.batch_remodelled.v4"),
    "starlift.batch_remodelled.v3": lambda document: {**document, "type": "starlift.batch_remodelled.v4"},
    "starlift.batch_ingested.v3": lambda document: {**document, "type": "starlift.batch_ingested.v4"},
    "starlift.batch_remodelled.v4": lambda document: {**document, "type": "starlift.batch_remodelled.v5"},
    "starlift.batch_ingested.v4": lambda document: {**document, "type": "starlift.batch_ingested.v5"},
    "starlift.batch_remodelled.v5": lambda document: {**document, "type": "starlift.batch_remodelled.v6"},
    "starlift.batch_loaded.v1": lambda document: {**document, "type": "starlift.batch_loaded.v2"},
}


def _without_key_lists(document: dict[str, Any], kind: str) -> dict[str, Any]:
    """Version 3 of a batch of version 2, whose lists of all keys are dropped: the next comparison finds what they would have.

    Data that is not an object is left for the model to reject.
    """
    data = document.get("data")
    without = {name: value for name, value in data.items() if name != "keys"} if isinstance(data, dict) else data
    return {**document, "type": kind, "data": without}


def upcast(document: dict[str, Any]) -> dict[str, Any]:
    """The document as the version of this build."""
    while (step := UPCASTS.get(str(document.get("type")))) is not None:
        document = step(document)
    return document
