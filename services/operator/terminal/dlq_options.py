"""The options of `starlift dlq` that several commands take."""

from __future__ import annotations

import functools
import getpass
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_type_hints

import typer
from pydantic.fields import FieldInfo

from services.operator.dlq.audit import Author
from services.operator.dlq.filters import Filter, read_filter
from services.operator.errors import UsageError
from shared.clock import utc_now


def not_empty(text: str) -> str:
    """Refuse an empty id. Raises: UsageError."""
    if not text:  # an unset variable of a script must not mean any of them
        raise UsageError("an id must not be empty")
    return text


Service = Literal["ingestion", "chunks", "remodelling", "loading"]  # whose dead letters; chunks: of ingestion's second queue
Services = Annotated[
    Service | None, typer.Argument(metavar="SERVICE", help="ingestion, chunks, remodelling or loading; default: all.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many letters of each service.")]
Operator = Annotated[
    str,
    typer.Option(
        envvar="STARLIFT_OPERATOR", help="Who does this, for the audit; default: your login name.", show_default=False
    ),
]
Why = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]
Ident = Annotated[str, typer.Argument(metavar="ID", help="Beginning of a letter's id or of its message's.", callback=not_empty)]


def author_of(operator: str, reason: str) -> Author:
    """Who does it: as they say, or as they are logged in. The user of a container has a number, and often no name."""
    try:
        return Author(operator or getpass.getuser(), reason)
    except (KeyError, OSError):
        return Author(f"uid {os.getuid()}", reason)


def takes_filter(command: Callable[..., None]) -> Callable[..., None]:
    """The command, whose parameter `chosen` is a Filter, with an option for each field of a Filter in its place."""

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        command(chosen=read_filter({name: given.pop(name) for name in Filter.model_fields}, utc_now()), **given)

    hints = get_type_hints(command, include_extras=True)
    own = [one for one in inspect.signature(command).parameters.values() if one.name != "chosen"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [one.replace(annotation=hints[one.name], kind=keyword) for one in own]
    options = {name: _option(name, field) for name, field in Filter.model_fields.items()}
    parameters += [inspect.Parameter(name, keyword, default=None, annotation=option) for name, option in options.items()]
    vars(with_options)["__signature__"] = inspect.Signature(parameters)
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


def _option(name: str, field: FieldInfo) -> Any:
    """The option of a Filter's field: moments and runs are text, which `read_filter` reads."""
    kind: Any = {"ids": list[str], "loaded": bool}.get(name, int if field.annotation == int | None else str)
    flag = {"ids": "--id", "runs": "--run"}.get(name, f"--{name.replace('_', '-')}")
    return Annotated[kind | None, typer.Option(flag, help=field.description)]
