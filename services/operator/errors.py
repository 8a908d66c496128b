"""What can go wrong in a command, by what the person at the terminal can do about it.

The texts are written by us and hold no row data: one sentence for the rule broken, with the value, then what to do.
Which exit code an error has is decided in one place, `services.operator.terminal.harness`.
"""

from __future__ import annotations


class OperatorError(Exception):
    """A command could not do its work. Recovery: the text says."""


class UsageError(OperatorError):
    """Arguments or settings contradict each other or name something that does not exist. Recovery: correct them."""


class NotFoundError(OperatorError):
    """Nothing matches what was asked for: no such row in quarantine, no such dead letter. Recovery: ask for something else."""


class NotLoadedError(OperatorError):
    """A run or a batch that was waited for is not in the warehouse. Recovery: the text says."""
