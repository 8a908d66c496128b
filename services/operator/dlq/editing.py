"""Changing a message by hand or by a patch, and reading exported letters: input of people, so every mistake is told."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, TypeVar

from pydantic import ValidationError

from services.operator.dlq.letters import Archived, Letter
from services.operator.system import SERVICES

Result = TypeVar("Result")


class WrongInputError(Exception):
    """What a person wrote can't be used. Recovery: correct it, as the text says."""


def edited(letter: Letter, patch: Path | None, accept: Callable[[Any], Result]) -> Result:
    """What `accept` makes of the message as a person wants it: patched by a file, or as it was saved in $EDITOR.

    What it refuses is kept in a file: it may be an hour's work. Raises: WrongInputError; what `accept` raises.
    """
    if patch is not None:
        return accept(merged(letter.document, _json(patch.read_bytes(), f"'{patch}'")))
    before = letter.delivery.body if letter.document is None else json.dumps(letter.document, indent=2)
    directory = Path(mkdtemp(prefix="starlift-edit-"))
    path = directory / "message.json"
    path.write_text(before, encoding="utf-8")
    after = before
    try:
        after = _in_editor(path)
        result = accept(_json(_changed(before, after), "what you saved"))
    except Exception as error:
        if after == before:
            rmtree(directory)
        else:
            error.add_note(f"what you saved is kept in '{path}'; correct it, and give it to --patch")
        raise
    rmtree(directory)
    return result


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


def services_in(path: Path) -> set[str]:
    """The services whose letters `export` has written into a file. Raises: WrongInputError, if any line is not of `export`."""
    return {archived.service for archived in _archived(path)}


async def letters_in(path: Path, service: str) -> AsyncIterator[Archived]:
    """The letters of one service in such a file."""
    for archived in _archived(path):
        if archived.service == service:
            yield archived


def _archived(path: Path) -> Iterator[Archived]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise WrongInputError(f"'{path}' can't be read ({error.strerror})") from error
    with file:
        for number, line in enumerate(file, start=1):
            try:
                archived = Archived.model_validate_json(line)
            except ValidationError as error:
                text = f"line {number} of '{path}' is no exported dead letter; nothing was restored"
                raise WrongInputError(text) from error
            if archived.service not in SERVICES:
                text = f"line {number} of '{path}' is a letter of '{archived.service}', which is none of {', '.join(SERVICES)}"
                raise WrongInputError(f"{text}; nothing was restored")
            yield archived


def _changed(before: str, after: str) -> str:
    if after == before:
        raise WrongInputError("nothing was changed; save the message in the editor, or use --patch")
    return after


def _in_editor(path: Path) -> str:
    """The text of the file, in a directory that only this person may read, as they save it."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        subprocess.run([*shlex.split(editor), str(path)], check=True)  # noqa: S603 (the person's own editor)
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise WrongInputError(f"the editor '{editor}' failed ({error}); set $EDITOR, or use --patch") from error


def _json(text: str | bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WrongInputError(f"{name} is no JSON ({error}); nothing was changed") from error
