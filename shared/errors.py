"""Errors by what recovers them.

They are raised where the cause is known, and become outcomes in one place, shared/consumer/executor.py. Their texts are written
by us and hold no row data; the text of any other error may quote a row and is therefore never logged or sent.
"""

from __future__ import annotations


class TransientError(Exception):
    """May pass by itself. Recovery: retry the message later; it counts as an attempt."""


class PermanentError(Exception):
    """No retry can help. Recovery: a person removes the cause and replays the dead letter."""


class DependencyDownError(Exception):
    """A database or a service that every message needs can't be reached.

    Recovery: the consumer stops receiving, keeps the messages it holds, and continues when `dependency` answers again.
    No attempt is counted.
    """

    def __init__(self, dependency: str, text: str) -> None:
        super().__init__(text)
        self.dependency = dependency


class LoginRefusedError(DependencyDownError):
    """A dependency answers, and refuses the credentials, the certificate or the name it is given.

    Recovery: as for an outage, since passwords are rotated; in its first minute a service ends instead: it was deployed wrong.
    """


class ServerBusyError(DependencyDownError):
    """A dependency answers and can't do the work: its disk is full, a lock is held, a standby cancels reads.

    Recovery: as for an outage. If it lasts although the probe is answered, the message is deferred; no attempt is counted.
    """


def decisive(error: Exception) -> Exception:
    """The error of a group that decides: an outage first, since the others may follow from it; then what no attempt helps."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [decisive(leaf) for leaf in error.exceptions]
    for kind in (DependencyDownError, PermanentError):
        found = next((leaf for leaf in leaves if isinstance(leaf, kind)), None)
        if found is not None:
            return found
    return leaves[0]
