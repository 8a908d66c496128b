"""The entry point of `starlift`. A command's module is imported when the command is run, so that `--help` answers at once."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from services.operator.terminal.harness import EXIT_CODES, run_command, sigterm_as_interrupt

# Name, where its typer application is, and its line in the help.
_COMMANDS = (
    ("ingest", "services.operator.terminal.ingest:app", "Ask for a run: read what has changed, and load it."),
    ("resend", "services.operator.terminal.ingest:app", "Send batches again that were announced and never loaded."),
    ("status", "services.operator.terminal.status:app", "Show services, queues, dead letters, rows and freshness."),
    ("runs", "services.operator.terminal.runs:app", "Show the last runs, and what became of them."),
    ("verify", "services.operator.terminal.verify:app", "Compare the star with the source, row by row."),
    ("trace", "services.operator.terminal.trace:app", "Show the life of a row: its runs, messages, objects and times."),
    ("dlq", "services.operator.terminal.dlq:app", "See, understand, repair and replay dead letters."),
    ("quarantine", "services.operator.terminal.quarantine:app", "List the rows that the warehouse can't hold."),
)
_LOCAL_COMMANDS = (
    ("up", "services.operator.terminal.local:app", "Start the local stack and the three services."),
    ("down", "services.operator.terminal.local:app", "Stop what `starlift up` started."),
    ("demo", "services.operator.terminal.local:app", "Fill a source, load it, write to it for a while."),
)


class LazyCommand(TyperCommand):
    """A command, or a group of commands, that is imported when it is used; until then only its line of help is known."""

    def __init__(self, name: str, place: str, line: str) -> None:
        super().__init__(name, help=line)
        self._name = name
        self._place = place

    def load(self) -> TyperCommand | TyperGroup:
        """Import the command."""
        module, _, attribute = self._place.partition(":")
        application = getattr(import_module(module), attribute)
        application.rich_markup_mode = None  # plain text: typer's help in boxes costs more than the rest of the command
        group = typer.main.get_group(application)
        return cast("TyperCommand | TyperGroup", group.commands.get(self._name, group))

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse the arguments as the command itself does."""
        return self.load().make_context(*arguments, **options)


def starlift() -> TyperGroup:
    """The command with all its commands; `up`, `down` and `demo` only where the extra `local` is installed."""
    known = _COMMANDS + (_LOCAL_COMMANDS if find_spec("localstack_client") is not None else ())
    return TyperGroup(
        name="starlift",
        commands={name: LazyCommand(name, place, line) for name, place, line in known},
        help="Keep a star-schema warehouse equal to an OLTP PostgreSQL database, and prove it.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        rich_markup_mode=None,
    )


def main() -> None:
    """Run the command that the shell asks for."""
    with sigterm_as_interrupt():
        code = run_command(starlift(), sys.argv[1:])
    sys.exit(code)
