"""Rows that a filter leaves out, and rows of which it cannot tell."""

from __future__ import annotations

from typing import Any

from services.remodelling.quarantine import refused_rows
from services.remodelling.transform import Remodelled, SourceRows, remodel
from tests.fixtures.filtered_contract import FILTERED
from tests.fixtures.source_rows import frame, reasons, values

LONG = "x" * 100_001


def remodelled(name: str, *rows: dict[str, Any]) -> tuple[Remodelled, list[dict[str, Any]]]:
    table = next(one for one in FILTERED.remodelled_tables if one.name == name)
    source = FILTERED.source_table(table.source)
    base = {source.name: frame(source, rows)}
    (result,) = [one for one in remodel(FILTERED, SourceRows(base, {})) if one.table == table]
    return result, [dict(one.key) for one in refused_rows(FILTERED, base, [result])]


def test_a_row_is_accepted_only_if_the_filter_is_true() -> None:
    result, _ = remodelled(
        "fact_sale",
        {"region": "N", "sale_id": 1, "status": "open", "is_test": False, "changed_at": 0},
        {"region": "N", "sale_id": 2, "status": "draft", "is_test": False, "changed_at": 0},
        {"region": "N", "sale_id": 3, "status": "open", "is_test": None, "changed_at": 0},
    )
    assert values(result, "sale_id") == [1]
    assert result.rejected == [("N", 2), ("N", 3)]


def test_a_row_is_refused_if_its_filter_reads_a_value_that_expressions_do_not_read() -> None:
    """Behind rows that are rejected: a refused row keeps its place among those that were read."""
    result, keys = remodelled(
        "fact_sale",
        {"region": "N", "sale_id": 1, "status": "draft", "is_test": False, "changed_at": 0},
        {"region": "N", "sale_id": 2, "status": LONG, "is_test": True, "changed_at": 0},
    )
    assert result.rejected == [("N", 1)]
    assert keys == [{"region": "N", "sale_id": 2}]
    assert reasons(result) == [("", "has a filter that reads 'status', which is longer than 100,000 characters", [1])]


def test_a_value_that_could_not_travel_is_not_null_to_a_filter() -> None:
    """No image can be made of a row with an infinite timestamp, and none is needed of one that is rejected for having it."""
    infinite = {"customer_id": 1, "deleted_at": None, "_defect": "deleted_at is infinite"}
    result, keys = remodelled("dim_customer", infinite, {"customer_id": 2, "deleted_at": None})
    assert (result.rejected, keys, values(result, "customer_id")) == ([(1,)], [], [2])


def test_a_filter_that_reads_a_value_that_could_not_travel_cannot_tell() -> None:
    unknown = {"customer_id": 1, "kind": "partner", "credit": None, "_defect": "credit is NaN"}
    result, keys = remodelled("dim_partner", unknown)
    assert (result.rejected, keys, reasons(result)) == ([], [{"customer_id": 1}], [("", "credit is NaN", [0])])
