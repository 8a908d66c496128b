"""Keys of source rows: numbers as they are, everything else as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from contracts.tables import SourceTable

if TYPE_CHECKING:
    import pandas as pd  # half a second for every command

Key = tuple[Any, ...]


def keys_of(table: SourceTable, rows: pd.DataFrame) -> list[Key]:
    """The keys of an extract's rows: numbers as they are, everything else as text."""
    if table.key_text is not None:
        return [tuple(json.loads(text)) for text in rows[table.key_text].tolist()]
    return list(zip(*(rows[name].tolist() for name in table.key), strict=True))
