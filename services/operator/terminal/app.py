"""The entry point of `starlift`. A command's module is imported when the command is run, so that `--help` is quick."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from services.operator.terminal.harness import EXIT_CODES, run_command, sigterm_as_interrupt

# Name, the module of this package whose `app` has it, and its line in the help.
_COMMANDS = (
    ("init", "contract", "Read a database's catalog and write a contract that is ready to run."),
    ("pull", "contract", "Bring the `source` part of a contract up to date with the database."),
    ("convert", "contract", "Turn a contract in Python, the earlier form, into a document."),
    ("plan", "plan", "Show a contract's problems, what a first run reads, and what would change."),
    ("describe", "describe", "Describe the star for analysts: its tables, and where each column comes from."),
    ("grants", "grants", "Print the SQL that creates roles with the fewest rights."),
    ("ingest", "ingest", "Request a run: read the changes and load them."),
    ("resend", "ingest", "Resend batches that were announced but never loaded."),
    ("status", "status", "Show services, queues, dead letters, rows and freshness."),
    ("runs", "runs", "Show the last runs and their results."),
    ("files", "files", "Show what waits in the drop zone, and what became of other files."),
    ("verify", "verify", "Compare the star with the source, row by row."),
    ("trace", "trace", "Show the history of a row: runs, messages, objects and times."),
    ("dlq", "dlq", "Show, repair, replay and discard dead letters."),
    ("quarantine", "quarantine", "List the rows that the warehouse can't hold."),
)
_LOCAL_COMMANDS = (
    ("up", "local", "Start the local stack and the three services."),
    ("down", "local", "Stop what `starlift up` started."),
    ("demo", "local", "Fill a source, load it, follow its changes."),
)

_BY_SOURCE = frozenset({"ingest", "status", "runs", "files", "verify", "trace", "dlq", "quarantine"})  # modules


class LazyCommand(TyperCommand):
    """A command, or a group of commands, that is imported when it is used; until then only its line of help is known."""

    def __init__(self, name: str, module: str, line: str) -> None:
        super().__init__(name, help=line)
        self._name = name
        self._module = module

    def load(self) -> TyperCommand | TyperGroup:
        """Import the command."""
        application = import_module(f"{__package__}.{self._module}").app
        if self._module in _BY_SOURCE:
            _take_source(application)
        application.rich_markup_mode = None  # plain text: typer's help in boxes costs more than the rest of the command
        group = typer.main.get_group(application)
        return cast("TyperCommand | TyperGroup", group.commands.get(self._name, group))

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse the arguments as the command itself does."""
        return self.load().make_context(*arguments, **options)


def _take_source(application: typer.Typer) -> None:
    """Give every command of an application the option `--source`, once."""
    from services.operator.terminal.sources import by_source  # noqa: PLC0415 (pydantic's settings, which `--help` does not need)

    for info in application.registered_commands:
        if info.callback is not None and "source" not in signature(info.callback).parameters:
            info.callback = by_source(info.callback, info.name or info.callback.__name__)


def starlift() -> TyperGroup:
    """The command with all its commands; `up`, `down` and `demo` only where the extra `local` is installed."""
    known = _COMMANDS + (_LOCAL_COMMANDS if find_spec("localstack_client") is not None else ())
    return TyperGroup(
        name="starlift",
        commands={name: LazyCommand(name, module, line) for name, module, line in known},
        help="Keep a star-schema warehouse equal to its sources, and prove it: PostgreSQL databases, files and HTTP APIs.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        rich_markup_mode=None,
    )


def main() -> None:
    """Run the command that the shell asks for."""
    with sigterm_as_interrupt():
        code = run_command(starlift(), sys.argv[1:])
    sys.exit(code)
