"""What a person gives to `starlift dlq`: a patch or an edited message, and files of exported letters."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, TextIO, TypeVar

from pydantic import ValidationError

from contracts.dead_letters import Archived
from services.operator.dlq.letters import Letter
from services.operator.errors import UsageError
from services.operator.system import QUEUES

Result = TypeVar("Result")


def edited_by_person(patch: Path | None, letter: Letter, accept: Callable[[Any], Result]) -> Result:
    """What `accept` returns for the message as a person wants it: patched by a file, or as saved in $EDITOR.

    A message that it refuses is kept in a file: it may be an hour's work. Raises: UsageError; what `accept` raises.
    """
    if patch is not None:
        return accept(merged(letter.document, _json(patch.read_bytes(), f"'{patch}'")))
    before = letter.delivery.body if letter.document is None else json.dumps(letter.document, indent=2)
    after = _in_editor(before)
    if after == before:
        raise UsageError("nothing was changed; save the message in the editor, or use --patch")
    try:
        return accept(_json(after, "what you saved"))
    except Exception as error:
        kept = Path(mkdtemp(prefix="starlift-edit-")) / "message.json"
        kept.write_text(after, encoding="utf-8")
        error.add_note(f"what you saved is kept in '{kept}'; correct it, and give it to --patch")
        raise


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


@contextmanager
def created(output: Path) -> Iterator[TextIO]:
    """A new file, to write; it is removed after an error, so that no part of an export looks whole. Raises: UsageError."""
    try:
        file = output.open("x", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{output}' can't be written ({error.strerror}); choose another name") from error
    try:
        with file:
            yield file
    except BaseException:
        output.unlink()
        raise


def services_in(path: Path) -> set[str]:
    """The services whose letters `export` has written into a file. Raises: UsageError, if any line is not of `export`."""
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
        raise UsageError(f"'{path}' can't be read ({error.strerror})") from error
    with file:
        for number, line in enumerate(file, start=1):
            try:
                archived = Archived.model_validate_json(line)
            except ValidationError as error:
                raise UsageError(f"line {number} of '{path}' is not an exported dead letter; nothing was restored") from error
            if archived.service not in QUEUES:
                text = f"line {number} of '{path}' is a letter of '{archived.service}', not of {', '.join(QUEUES)}"
                raise UsageError(f"{text}; nothing was restored")
            yield archived


def _in_editor(text: str) -> str:
    """The text as the person saves it, in a file that only they may read."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with TemporaryDirectory(prefix="starlift-edit-") as directory:
        path = Path(directory) / "message.json"
        path.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(path)], check=True)  # noqa: S603 (the person's own editor)
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise UsageError(f"the editor '{editor}' failed ({error}); set $EDITOR, or use --patch") from error


def _json(text: str | bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON ({error}); nothing was changed") from error
