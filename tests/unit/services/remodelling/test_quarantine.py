from __future__ import annotations

import datetime as dt
import json
from typing import Any

from services.remodelling.quarantine import refused_rows
from services.remodelling.transform import SourceRows, remodel
from tests.fixtures.small_contract import SHELF, SHOP
from tests.fixtures.source_rows import EPOCH, items, shelves

LAST_DAY = (dt.date.max - EPOCH).days


def entries(rows: SourceRows) -> list[dict[str, Any]]:
    return [json.loads(row.model_dump_json()) for row in refused_rows(SHOP, rows.base, remodel(SHOP, rows))]


def test_a_line_names_the_table_the_row_and_the_reason() -> None:
    (entry,) = entries(items({}, {"due": "soon", "currency": "?"}))
    assert (entry["table"], entry["source_table"], entry["key"]) == ("fact_sale", "item", {"item_id": 2})
    assert entry["problems"] == [
        {"column": "due_date", "reason": "is not a date (YYYY-MM-DD)"},
        {"column": "currency_name", "reason": "is not an ISO 4217 currency code"},
    ]


def test_a_line_holds_the_whole_row_as_a_person_writes_it() -> None:
    (entry,) = entries(items({"due": "soon", "note": "🚚 'ok'", "good": None}))
    assert entry["row"] == {
        "item_id": 1,
        "maker_id": 1,
        "serial": 2**40,
        "price": "1.2500",
        "code": "abc",
        "note": "🚚 'ok'",
        "good": None,
        "born": "1970-01-01",
        "opens": "00:00:00.000001",
        "sold_at": "2026-11-01 09:30:00.000001",
        "mood": "calm",
        "due": "soon",
        "currency": "GBP",
    }


def test_a_row_refused_by_two_tables_has_a_line_for_each() -> None:
    found = entries(items({}, {"_defect": "price is NaN", "price": None}))
    assert [(entry["table"], entry["problems"]) for entry in found] == [
        ("dim_item", [{"column": "", "reason": "price is NaN"}]),
        ("fact_sale", [{"column": "", "reason": "price is NaN"}]),
    ]


def test_an_entry_stays_on_one_line_whatever_the_row_holds() -> None:
    rows = items({"due": "so\non\r"})
    (row,) = refused_rows(SHOP, rows.base, remodel(SHOP, rows))
    line = row.model_dump_json()
    assert "\n" not in line
    assert "\r" not in line


def test_a_composite_key_is_listed_column_by_column() -> None:
    (entry,) = entries(shelves({"row": 1, "label": "a", "width": None}))
    assert entry["key"] == {"row": 1, "label": "a"}
    assert list(entry["key"]) == list(SHELF.key)


def test_valid_rows_leave_no_line() -> None:
    assert entries(items({}, {})) == []
