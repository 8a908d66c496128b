"""Where a demo plays: a stack of its own, filled, its services up, and gone afterwards with all that is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from infra.local.disk import disk_errors
from infra.local.stack import Stack
from infra.local.state import OPERATOR, Home, default_home, service_environment
from services.operator.exit_codes import ComplaintError, ExitCode
from services.operator.local import up
from services.operator.locate import enter


@contextmanager
def stage(console: Console, *, orders: int, every: timedelta) -> Iterator[tuple[str, Path]]:
    """Where the application writes, and a folder for logs. Inside, this process is an operator of that stack and no other.

    Raises: ComplaintError where another demo plays.
    """
    home = default_home() / "demo"  # below what is ours: it is removed, with all that is in it
    if Home(home).is_taken():
        sentence = "another demo plays here; wait until it has ended, or set STARLIFT_HOME to another place"
        raise ComplaintError(sentence, ExitCode.FAILED)
    Stack.remove(home)
    try:
        with up.interrupted_by_sigterm(), Stack(home) as stack, disk_errors(home):
            up.start(stack, up.UpOptions(None, None, every), console, orders=orders)
            with console.status("starting the three services"):
                up.start_services(stack, home)
            enter(service_environment(OPERATOR, stack.state, os.environ))
            yield stack.source_owner_url or "", home
    finally:
        Stack.remove(home)
