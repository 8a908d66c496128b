"""Key lists in their physical form: gzipped JSON lines, the columns of one key as an array a line."""

from __future__ import annotations

import gzip
import json
from typing import Any

Key = tuple[Any, ...]


def packed(lines: bytes) -> bytes:
    """The object of a part of a list; the same lines make the same bytes."""
    return gzip.compress(lines, compresslevel=1, mtime=0)


def unpacked(body: bytes) -> list[Key]:
    """The keys of a part."""
    lines = gzip.decompress(body).splitlines()
    return [tuple(key) for key in json.loads(b"[" + b",".join(lines) + b"]")]
