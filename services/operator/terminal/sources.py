"""`--source`, which every command takes that works on a running Starlift, and commands that go over all its sources."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Annotated, Any

import typer

from contracts.contract import Contract
from services.operator.errors import OperatorError, UsageError
from services.operator.locate import enter
from services.operator.system import OperatorSettings
from services.operator.terminal.harness import explained
from services.operator.wording import HEADING
from shared.errors import DependencyDownError, PermanentError, TransientError

SourceOption = Annotated[str | None, typer.Option("--source", help="The source to work on, if the contract has several.")]
GO_OVER_ALL = frozenset({"ingest", "resend", "status", "runs", "files", "verify", "list"})  # most others need `--source`
GO_OVER_ONE = frozenset({"audit"})  # what they show is not kept by source

_CHOSEN: ContextVar[str | None] = ContextVar("source", default=None)


class SeveralSourcesError(UsageError):
    """A command works on one source, and none was chosen. Recovery: choose one."""

    def __init__(self, contract: Contract) -> None:
        names = ", ".join(contract.sources)
        super().__init__(f"contract '{contract.name}' has several sources ({names}); pass --source with the name of one")
        self.contract = contract


def of_chosen_source(settings: OperatorSettings) -> OperatorSettings:
    """The settings of the source that the command works on. Raises: UsageError."""
    found, name = settings.by_source(), _CHOSEN.get()
    if name is None and len(found) > 1:
        raise SeveralSourcesError(settings.contract)
    if name is not None and name not in found:
        raise UsageError(f"there is no source '{name}'; the sources are {', '.join(found)}")
    return settings if name is None else found[name]


def by_source(command: Callable[..., None], name: str) -> Callable[..., None]:
    """The command called `name` with the option `--source`.

    If there are several sources and none is chosen, it works on that of the table that it is asked about, or on each in turn.
    """

    @wraps(command)
    def chosen(*, source: str | None, **options: Any) -> None:
        environment = dict(os.environ)
        try:
            with _working_on(source):
                command(**options)
        except SeveralSourcesError as several:
            parts = _parts(several.contract, options)
            if name not in GO_OVER_ALL or options.get("report"):
                if not options.get("table") and name not in GO_OVER_ONE:
                    raise
                parts = dict([*parts.items()][:1])  # the calendar belongs to each source
            _go_over(command, parts, environment)

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("source", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SourceOption)
    chosen.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    chosen.__annotations__ = {**command.__annotations__, "source": SourceOption}
    return chosen


def _parts(contract: Contract, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options for each source to work on: those that have a table that was named, or all."""
    asked = options.get("tables") or [table for table in [options.get("table")] if table]
    parts = {}
    for source in contract.sources:
        own = [table.name for table in contract.part(source).warehouse_tables if table.name in asked]
        if own or not asked:
            parts[source] = {**options, "tables": own} if options.get("tables") else options
    return parts or {contract.sources[0]: options}  # which reports that there is no such table


def _go_over(command: Callable[..., None], parts: dict[str, dict[str, Any]], environment: dict[str, str]) -> None:
    """Run the command for each source, even if it failed for another. Exit with the lowest code that is not 0."""
    codes = []
    for source, options in parts.items():
        enter(environment)  # the command has replaced it by that of the local stack
        if len(parts) > 1:
            typer.echo(f"{HEADING}{source}", err=bool(options.get("as_json")))  # one JSON document for each source
        try:
            with _working_on(source):
                command(**options)
        except typer.Exit as ended:
            codes.append(ended.exit_code)
        except (OperatorError, DependencyDownError, PermanentError, TransientError) as error:
            sys.stdout.flush()  # so that what is printed stays in its order where both go into one file
            codes.append(explained(error))
    if failed := [code for code in codes if code]:
        raise typer.Exit(min(failed))


@contextmanager
def _working_on(source: str | None) -> Iterator[None]:
    token = _CHOSEN.set(source)
    try:
        yield
    finally:
        _CHOSEN.reset(token)
