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


@unique
class DeadLetterExit(IntEnum):
    """Of `starlift dlq`, likewise stable."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    PARTIAL = 3  # some letters stayed where they are; the table, or --json, says why
    NOTHING = 4  # no letter matched
    STOPPED = 5  # by a safety limit
    LOCKED = 6  # somebody else works on these letters
    NO_ACCESS = 7  # a queue or a bucket is missing, can't be reached, or refuses us
    INTERRUPTED = 130  # `starlift dlq resume` goes on


class ComplaintError(Exception):
    """One sentence for the person, and the exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code
