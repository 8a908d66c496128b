from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.column_types import DATE
from contracts.origins import CalendarPart
from contracts.tables import Column
from services.remodelling.transform import Remodelled, SourceRows, _origin_values, remodel
from shared.codecs import codec_of
from tests.fixtures.small_contract import DIM_ITEM, FACT_SALE, SHOP
from tests.fixtures.source_rows import A_MAKER, DAY_US, EPOCH, SOLD_AT, frame, items, reasons, remodelled, values

FIRST_US = (dt.date.min - EPOCH).days * DAY_US
LAST_US = (dt.date.max - EPOCH).days * DAY_US
A_DAY_LATE, A_DAY_EARLY = LAST_US + DAY_US, FIRST_US - DAY_US
OUT_OF_RANGE = "is outside the years 0001 to 9999"


def test_a_value_of_the_base_table_is_kept_unchanged() -> None:
    result = remodelled(items({}), "dim_item")
    found = {name: values(result, name)[0] for name in DIM_ITEM.star_types}
    assert found == {
        "item_id": 1,
        "serial": 2**40,
        "price": 12_500,
        "code": "abc",
        "note": "as new",
        "good": True,
        "born": 0,
        "opens": 1,
        "sold_at": SOLD_AT,
        "mood": "calm",
        "maker_town": "Leeds",
        "maker_capital": 1050,
    }
    assert reasons(result) == []
    assert [str(kind) for kind in result.rows.dtypes] == [codec_of(c.type).frame for c in DIM_ITEM.columns]


def test_a_timestamp_is_split_into_date_and_time_even_before_1970() -> None:
    moments = [SOLD_AT, 0, -1, FIRST_US, LAST_US + DAY_US - 1]
    result = remodelled(items(*({"sold_at": moment} for moment in moments)), "fact_sale")
    assert values(result, "sold_date") == [SOLD_AT // DAY_US, 0, -1, FIRST_US // DAY_US, LAST_US // DAY_US]
    assert values(result, "sold_time") == [34_200_000_001, 0, DAY_US - 1, 0, DAY_US - 1]
    assert reasons(result) == []


def test_a_text_becomes_the_date_it_spells() -> None:
    texts = ["1970-01-01", "2024-02-29", "0001-01-01", "9999-12-31", None, "2024-02-29"]
    result = remodelled(items(*({"due": text} for text in texts)), "fact_sale")
    days = [None if text is None else (dt.date.fromisoformat(text) - EPOCH).days for text in texts]
    assert (values(result, "due_date"), reasons(result)) == (days, [])


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "2023-02-30", "2023-13-01", "0000-01-01", "20230301", "2023-W01-1", "2023-1-1", " 2023-01-01"),
        *("2023-01-01\n", "01/02/2023", "\N{FULLWIDTH DIGIT TWO}023-01-01", "12023-01-01", "2023-01-01 00:00", "today", "NULL"),
    ],
)
def test_a_text_that_is_not_a_date_is_quarantined_and_other_rows_pass(text: str) -> None:
    result = remodelled(items({}, {"due": text}, {}), "fact_sale")
    assert reasons(result) == [("due_date", "is not a date (YYYY-MM-DD)", [1])]
    assert values(result, "item_id") == [1, 3]


def test_a_currency_gets_its_name() -> None:
    codes = ["GBP", "USD", "EUR", "JPY", None]
    result = remodelled(items(*({"currency": code} for code in codes)), "fact_sale")
    assert values(result, "currency_name") == ["Pound Sterling", "US Dollar", "Euro", "Yen", None]


@pytest.mark.parametrize("code", ["gbp", "XQX", "", "GB", "£"])
def test_an_unknown_currency_code_is_quarantined(code: str) -> None:
    result = remodelled(items({"currency": code}, {}), "fact_sale")
    assert reasons(result) == [("currency_name", "is not an ISO 4217 currency code", [0])]
    assert values(result, "item_id") == [2]


def test_an_absent_text_takes_the_contract_s_default_and_an_empty_one_stays_empty() -> None:
    rows = SourceRows(
        base={"maker": frame(SHOP.source_table("maker"), [{**A_MAKER, "town": None}, {**A_MAKER, "town": ""}])},
        partners={},
    )
    assert values(remodelled(rows, "dim_maker"), "town") == ["(unknown)", ""]


def test_a_partner_s_value_is_looked_up_by_the_reference() -> None:
    makers = [A_MAKER, {"maker_id": 2, "maker_name": "x", "town": None, "capital": None}]
    result = remodelled(items({"maker_id": 2}, {}, {"maker_id": 2}, makers=makers), "dim_item")
    assert (values(result, "maker_town"), values(result, "maker_capital")) == ([None, "Leeds", None], [None, 1050, None])


def test_a_partner_in_two_extracts_counts_once() -> None:
    result = remodelled(items({}, {}, makers=[A_MAKER, A_MAKER]), "dim_item")
    assert values(result, "item_id") == [1, 2]


def test_a_row_without_its_partner_has_null_for_the_partner_s_values() -> None:
    result = remodelled(items({}, {"maker_id": 9}), "dim_item")
    assert (reasons(result), values(result, "maker_town")) == ([], ["Leeds", None])
    rows = items({})
    alone = SourceRows(base=rows.base, partners={})
    assert values(remodelled(alone, "dim_item"), "maker_capital") == [None]
    assert values(remodelled(alone, "fact_sale"), "item_id") == [1]


def test_a_row_without_a_reference_has_no_partner_values() -> None:
    result = remodelled(items({"maker_id": None}, {}), "dim_item")
    assert (reasons(result), values(result, "maker_town")) == ([], [None, "Leeds"])


def test_null_in_a_column_that_must_not_be_null_is_quarantined() -> None:
    result = remodelled(items({"sold_at": None}, {}), "fact_sale")
    assert reasons(result) == [("sold_date", "is NULL", [0]), ("sold_time", "is NULL", [0])]
    assert values(result, "item_id") == [2]


def test_a_text_with_too_many_code_points_is_quarantined() -> None:
    result = remodelled(items({"code": "abcd"}, {"code": "🚚🚚🚚"}, {"code": None}), "dim_item")
    assert reasons(result) == [("code", "is longer than 3", [0])]
    assert values(result, "code") == ["🚚🚚🚚", None]


def test_a_row_with_a_defect_is_quarantined_for_every_table_made_of_it() -> None:
    rows = items({}, {"_defect": "price is NaN", "price": None}, {"_defect": "born is infinite; price is NaN"})
    for table in ("dim_item", "fact_sale"):
        result = remodelled(rows, table)
        assert reasons(result) == [("", "price is NaN", [1]), ("", "born is infinite; price is NaN", [2])]
        assert values(result, "item_id") == [1]


def test_a_partner_s_unreadable_value_is_not_taken_for_null() -> None:
    broken = {**A_MAKER, "capital": None, "_defect": "capital is NaN"}
    result = remodelled(items({}, makers=[broken]), "dim_item")
    assert reasons(result) == [("maker_capital", "comes from a row of 'maker' that could not be read: capital is NaN", [0])]


def test_a_partner_s_null_stays_null_beside_a_defect_of_a_column_with_a_longer_name() -> None:
    broken = {**A_MAKER, "capital": None, "_defect": "born is infinite; working_capital is NaN"}
    result = remodelled(items({}, makers=[broken]), "dim_item")
    assert reasons(result) == []
    assert values(result, "maker_capital") == [None]


@pytest.mark.parametrize("moment", [A_DAY_EARLY, A_DAY_LATE])
def test_a_year_outside_the_calendar_is_quarantined(moment: int) -> None:
    result = remodelled(items({}, {"sold_at": moment}), "fact_sale")
    assert reasons(result) == [("sold_date", OUT_OF_RANGE, [1])]
    result = remodelled(items({"born": moment // DAY_US}, {"sold_at": moment}, {}), "dim_item")
    assert reasons(result) == [("born", OUT_OF_RANGE, [0]), ("sold_at", OUT_OF_RANGE, [1])]
    assert values(result, "item_id") == [3]


def test_a_row_with_several_problems_is_removed_once_and_names_them_all() -> None:
    result = remodelled(items({"due": "soon", "currency": "?"}, {}), "fact_sale")
    assert [reason[:2] for reason in reasons(result)] == [
        ("due_date", "is not a date (YYYY-MM-DD)"),
        ("currency_name", "is not an ISO 4217 currency code"),
    ]
    assert values(result, "item_id") == [2]


def test_a_table_without_rows_in_the_batch_is_left_out() -> None:
    assert [result.table.name for result in remodel(SHOP, items({}))] == ["dim_item", "fact_sale"]
    assert list(remodel(SHOP, items())) == []


def test_remodelling_does_not_make_the_calendar() -> None:
    with pytest.raises(TypeError, match="belongs to the calendar"):
        _origin_values(Column("day", DATE, CalendarPart("date")), {})


TEXTS = st.none() | st.sampled_from(["2026-01-01", "2023-02-30", "soon", "", "GBP", "XQX"]) | st.text(max_size=5)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {
            "maker_id": st.none() | st.integers(1, 3),
            "serial": st.none() | st.integers(-(2**63), 2**63 - 1),
            "price": st.none() | st.integers(-(10**18) + 1, 10**18 - 1),
            "born": st.none() | st.integers(-(2**31) + 800_000, 2**31 - 1),
            "sold_at": st.none() | st.integers(-(2**57), 2**62),
            **dict.fromkeys(("code", "note", "due", "currency"), TEXTS),
            "good": st.none() | st.booleans(),
            "_defect": st.none() | st.sampled_from(["price is NaN", "born is infinite"]),
        }
    ),
    min_size=1,
    max_size=6,
)


def refused(result: Remodelled) -> int:
    """The number of rows refused with a reason."""
    masks = [refusal.rows for refusal in result.refusals]
    return int(pd.concat(masks, axis=1).any(axis=1).sum()) if masks else 0


@given(ITEMS, st.lists(st.integers(1, 3), unique=True))
@settings(deadline=None, max_examples=40)
def test_every_row_becomes_a_star_row_or_is_quarantined(changes: list[dict[str, Any]], makers: list[int]) -> None:
    rows = items(*changes, makers=[{**A_MAKER, "maker_id": key} for key in makers])
    for result in remodel(SHOP, rows):
        assert len(result.rows) + refused(result) == len(changes)
        for column in result.table.columns:
            assert column.nullable or result.rows[column.name].notna().all()
            assert str(result.rows[column.name].dtype) == codec_of(column.type).frame


@given(ITEMS)
@settings(deadline=None, max_examples=12)
def test_the_result_for_a_row_does_not_depend_on_other_rows(changes: list[dict[str, Any]]) -> None:
    together = remodelled(items(*changes), FACT_SALE.name).rows
    alone = [remodelled(items(change), FACT_SALE.name).rows for change in changes]
    pieces = pd.concat(alone, ignore_index=True).drop(columns="item_id")
    pd.testing.assert_frame_equal(together.drop(columns="item_id"), pieces, check_dtype=False)
