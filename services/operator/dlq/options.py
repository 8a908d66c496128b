"""The options that choose letters: the same for every command, so that what `replay` plans `discard` would discard."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import Annotated, Any, get_type_hints

import typer

from services.operator.dlq.filters import Filter, WrongFilterError, read_moment, read_runs


@unique
class Service(StrEnum):
    """Whose dead letters."""

    INGESTION = "ingestion"
    REMODELLING = "remodelling"
    LOADING = "loading"


Services = Annotated[Service | None, typer.Argument(metavar="SERVICE", help="ingestion, remodelling or loading; default: all.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many letters of each service.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of tables.")]
Operator = Annotated[
    str,
    typer.Option(
        envvar="STARLIFT_OPERATOR", help="Who does this, for the audit; default: your login name.", show_default=False
    ),
]

_RUN_HELP = "Run 17, or runs 17..21."
_SINCE_HELP = "Failed last at or after: 15m, 2h, 3d ago, or ISO 8601."
_FILTER_OPTIONS: dict[str, Any] = {
    "ids": Annotated[list[str] | None, typer.Option("--id", help="Beginning of a letter's or a message's id; repeatable.")],
    "fingerprint": Annotated[str | None, typer.Option(help="Beginning of a failure's fingerprint.")],
    "error": Annotated[str | None, typer.Option(help="Type of the error, such as SourceMismatchError.")],
    "type": Annotated[str | None, typer.Option(help="Type of the message: batch_ingested, or starlift.batch_ingested.v1.")],
    "version": Annotated[int | None, typer.Option(help="Version of the message's type.")],
    "runs": Annotated[str | None, typer.Option("--run", help=_RUN_HELP)],
    "since": Annotated[str | None, typer.Option(help=_SINCE_HELP)],
    "until": Annotated[str | None, typer.Option(help="Failed last before.")],
    "where": Annotated[
        str | None,
        typer.Option(help="JMESPath over body and failure, in single quotes: 'body.data.index > `3`'."),
    ],
    "replays": Annotated[int | None, typer.Option(help="Replayed exactly this many times.")],
    "max_replays": Annotated[int | None, typer.Option(help="Replayed at most this many times.")],
}


def takes_filter(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `chosen` is a Filter, as one with all the options that make up a filter."""
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name != "chosen"
    ]
    asked = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _FILTER_OPTIONS.items()
    ]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        command(chosen=read_filter({name: given.pop(name) for name in _FILTER_OPTIONS}), **given)

    parameters = [*own, *asked]
    vars(with_options)["__signature__"] = inspect.Signature(parameters)
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def read_filter(given: dict[str, Any]) -> Filter:
    """The filter that a person has written. Raises: WrongFilterError."""
    now = datetime.now(UTC)
    for name, value in given.items():
        if value == "" or (isinstance(value, list) and "" in value):  # an unset variable of a script must not mean all letters
            raise WrongFilterError(f"the value of --{name.rstrip('s')} is empty; leave the option out, or give it one")
    read = {name: value for name, value in given.items() if value not in (None, [])}
    read |= {name: read_moment(read[name], now) for name in ("since", "until") if name in read}
    if "runs" in read:
        read["runs"] = read_runs(read["runs"])
    return Filter(**read)
