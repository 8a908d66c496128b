"""Documents that outlive the process that wrote them, in a bucket or in the warehouse, and may be damaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shared.errors import PermanentError

Document = TypeVar("Document")
Text = TypeVar("Text", str, bytes)


class DamagedDocumentError(PermanentError):
    """A stored document is damaged. Recovery: the remedy in its text."""


def read_stored(parse: Callable[[Text], Document], place: str, stored: Text, *, what: str, remedy: str) -> Document:
    """Parse a stored document. An error calls it `what`, names the `place` and gives the `remedy`.

    Raises: DamagedDocumentError.
    """
    try:
        return parse(stored)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DamagedDocumentError(f"'{place}' is not a valid {what}; {remedy}") from error
