"""What the exit codes of `starlift` mean."""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class ExitCode(IntEnum):
    """Stable: scripts rely on them."""

    DONE = 0
    FAILED = 1  # a database, a queue or the stack does not do what it should
    USAGE = 2  # wrong arguments or settings
    DIFFERENT = 3  # the warehouse does not equal the source
    NOT_LOADED = 4  # a run was asked for and is not in the warehouse
    INTERRUPTED = 130
