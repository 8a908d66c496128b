from __future__ import annotations

import pytest

from shared.catalog import _row_bytes


@pytest.mark.parametrize(
    ("table_bytes", "estimated_rows", "row_bytes"),
    [(1_000_000, 10_000, 100), (0, 0, 512), (8192, 0, 512), (50_000_000_000, 0, 50_000_000), (10, 1_000, 1)],
)
def test_rows_of_a_large_table_without_statistics_are_assumed_to_be_wide(
    table_bytes: int, estimated_rows: int, row_bytes: int
) -> None:
    assert _row_bytes(table_bytes, estimated_rows) == row_bytes
