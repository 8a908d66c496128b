"""Changing a message by hand or by a patch, and reading exported letters: input of people, so every mistake is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from services.operator.dlq.letters import Archived, Letter


class WrongPatchError(Exception):
    """What a person wrote can't be used. Recovery: correct it, as the text says."""


def edited(letter: Letter, patch: Path | None) -> Any:
    """The message as a person wants it: patched by a file, or as it was saved in $EDITOR. Raises: WrongPatchError."""
    if patch is not None:
        return merged(letter.document, _json(patch.read_text(), f"'{patch}'"))
    before = letter.delivery.body if letter.document is None else json.dumps(letter.document, indent=2)
    after = click.edit(before, extension=".json", require_save=True)
    if after is None or after == before:
        raise WrongPatchError("nothing was changed; save the message in the editor, or use --patch")
    return _json(after, "what you saved")


def merged(document: Any, patch: Any) -> Any:
    """`document` changed by a JSON Merge Patch (RFC 7386): null removes a member, everything but objects is replaced."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def read_archive(path: Path) -> Iterator[Archived]:
    """The letters that `export` has written. Raises: WrongPatchError, before the first letter is given."""
    letters = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            letters.append(Archived.model_validate_json(line))
        except ValidationError as error:
            raise WrongPatchError(f"line {number} of '{path}' is no exported dead letter; nothing was restored") from error
    return iter(letters)


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise WrongPatchError(f"{name} is no JSON ({error}); nothing was changed") from error
