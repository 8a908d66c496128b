"""Documents that outlive the process that wrote them, in a bucket or in the warehouse: whoever has access may damage one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shared.errors import PermanentError

Document = TypeVar("Document")
Text = TypeVar("Text", str, bytes)


class DamagedDocumentError(PermanentError):
    """A stored document is not what was written. Recovery: as its text says."""


def read_stored(parse: Callable[[Text], Document], place: str, stored: Text, *, what: str, remedy: str) -> Document:
    """What `parse` makes of a stored document; errors call it `what`, at `place`, and give the `remedy`.

    Raises: DamagedDocumentError.
    """
    try:
        return parse(stored)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DamagedDocumentError(f"'{place}' is not a valid {what}; {remedy}") from error
