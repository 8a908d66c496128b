"""How much memory a binary COPY takes; tests/integration/test_binary_copy.py compares its values with the server's."""

from __future__ import annotations

import tracemalloc

import pandas as pd
import pytest

from contracts.column_types import TEXT
from shared import binary_copy as binary

ROWS, COLUMNS, ROOM = 1_000, 40, 100_000


def test_a_long_text_in_each_of_many_columns_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "BYTES_AT_ONCE", ROOM)
    short = ["abc"] * (ROWS - 1)
    columns = {f"c{place}": [*short[:place], "x" * 90, *short[place:]] for place in range(COLUMNS)}
    frame = pd.DataFrame({name: pd.Series(texts, dtype=object) for name, texts in columns.items()})
    types = dict.fromkeys(columns, TEXT)
    tracemalloc.start()
    try:
        byte_count = sum(len(piece) for piece in binary.binary_copy(frame, types))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert byte_count == 21 + ROWS * 2 + COLUMNS * (ROWS * 4 + (ROWS - 1) * 3 + 90)
    assert peak < 20 * ROOM  # a column alone may take it, and all of them would take 100 times as much
