"""Key lists in their physical form: gzipped JSON lines, the columns of one key as an array a line."""

from __future__ import annotations

import gzip
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


def packed_keys(lines: bytes) -> bytes:
    """The object of a part of a list; the same lines make the same bytes."""
    return gzip.compress(lines, compresslevel=1, mtime=0)


def unpacked_keys(body: bytes) -> list[Key]:
    """The keys of a part."""
    lines = gzip.decompress(body).splitlines()
    return [tuple(key) for key in json.loads(b"[" + b",".join(lines) + b"]")]
