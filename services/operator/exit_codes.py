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
    NOT_LOADED = 4  # a run or a row that was asked for is not in the warehouse, or a proof is pending
    UNHEALTHY = 5  # something needs a person: `starlift status` names it
    INTERRUPTED = 130


class ComplaintError(Exception):
    """One sentence for the person, and the exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code
