"""Where a command that takes a while reports what it does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Screen(Protocol):
    """A terminal, or what a test reads."""

    def say(self, line: str) -> None:
        """Print one line that stays."""

    def doing(self, what: str) -> AbstractContextManager[Callable[[str], None]]:
        """Show what the block does while it does it; the function that it gets replaces the text."""
