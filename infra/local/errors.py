"""What the local stack says when it can't go on."""

from __future__ import annotations

from shared.errors import PermanentError


class StackError(PermanentError):
    """The local stack can't do what it was asked. The text is the one sentence for the person: rule, value, what to do."""
