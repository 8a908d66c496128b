"""Values that come over one or several joins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from contracts.tables import Column, WarehouseTable
from services.remodelling.transform import Remodelled, SourceRows, remodel
from tests.fixtures.joined_contract import DIM_CUSTOMER, DIM_EMPLOYEE, FACT_LINE, JOINED
from tests.fixtures.small_contract import with_column, with_table
from tests.fixtures.source_rows import DAY_US, SOLD_AT, frame, reasons, values

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
ENGLAND = {"country_id": 1, "name": "England", "currency": "GBP"}
LEEDS, LYON = {"country_id": 1, "code": "L", "name": "Leeds"}, {"country_id": 2, "code": "L", "name": "Lyon"}
BUYER = {"customer_id": 1, "bill_country": 1, "bill_city": "L", "ship_country": 2, "ship_city": "L"}
ORDER = {"order_id": 1, "customer_id": 1, "seller_id": 2, "ordered_at": SOLD_AT, "due": "1970-01-02"}
A_LINE = {"order_id": 1, "line_no": 1, "quantity": 1}
EVERYONE: Rows = {"country": [ENGLAND], "city": [LEEDS, LYON], "customer": [BUYER], "order header": [ORDER]}


def remodelled(table: WarehouseTable, rows: Sequence[Mapping[str, Any]], partners: Rows) -> Remodelled:
    contract = with_table(JOINED, table)
    (known,) = [one for one in contract.remodelled_tables if one.name == table.name]
    base = {known.source: frame(contract.source_table(known.source), rows)}
    frames = {name: frame(contract.source_table(name), of_table) for name, of_table in partners.items()}
    return next(one for one in remodel(contract, SourceRows(base, frames)) if one.table.name == table.name)


def required(column: Column) -> Column:
    return replace(column, nullable=False)


def test_a_table_is_joined_in_two_roles_by_a_key_of_two_columns() -> None:
    swapped = {**BUYER, "customer_id": 2, "bill_country": 2, "ship_country": 1}
    result = remodelled(DIM_CUSTOMER, [BUYER, swapped], EVERYONE)
    assert (values(result, "bill_city"), values(result, "ship_city")) == (["Leeds", "Lyon"], ["Lyon", "Leeds"])
    assert (values(result, "bill_country"), values(result, "ship_country")) == (["England", None], ["(none)", "England"])
    assert values(result, "bill_currency") == ["Pound Sterling", None]
    assert reasons(result) == []


def test_a_reference_that_contains_null_finds_no_row() -> None:
    """Also where a partner's key could not travel."""
    rows = [{**BUYER, "bill_country": None}, {**BUYER, "bill_city": None}, {**BUYER, "bill_country": None, "bill_city": None}]
    cities: list[Mapping[str, Any]] = [
        LEEDS,
        {"country_id": None, "code": "L", "name": "?"},
        {"country_id": None, "code": None, "name": "?"},
    ]
    result = remodelled(DIM_CUSTOMER, rows, {**EVERYONE, "city": cities})
    assert (values(result, "bill_city"), reasons(result)) == ([None] * 3, [])


def test_large_numbers_in_a_key_of_two_columns_stay_exact() -> None:
    near = [{**BUYER, "customer_id": number, "ship_country": 2**62 + number} for number in (0, 1)]
    city = {"country_id": 2**62 + 1, "code": "L", "name": "far"}
    assert values(remodelled(DIM_CUSTOMER, near, {"city": [city]}), "ship_city") == ["(none)", "far"]


def test_a_table_may_be_joined_with_itself() -> None:
    people = [
        {"employee_id": number, "name": f"N{number}", "manager_id": above}
        for number, above in ((1, None), (2, 1), (3, 2), (4, 4))
    ]
    result = remodelled(DIM_EMPLOYEE, people, {"employee": people})
    assert values(result, "manager") == ["(none)", "N1", "N2", "N4"]
    assert values(result, "director") == [None, None, "N1", "N4"]


def test_a_line_takes_its_dates_and_references_from_its_header() -> None:
    result = remodelled(FACT_LINE, [A_LINE, {**A_LINE, "order_id": 9}], EVERYONE)
    assert values(result, "order_date") == [SOLD_AT // DAY_US, None]
    assert values(result, "order_time") == [SOLD_AT % DAY_US, None]
    assert values(result, "sent_date") == [SOLD_AT // DAY_US, None]
    assert values(result, "due_date") == [1, None]
    assert (values(result, "customer_id"), values(result, "country_id")) == ([1, None], [1, None])
    assert values(result, "country") == ["England", "(unknown)"]
    assert reasons(result) == []


def test_a_missing_row_is_quarantined_by_name_only_where_null_is_not_allowed() -> None:
    column = required(DIM_CUSTOMER.column("bill_country"))
    rows = [BUYER, {**BUYER, "bill_city": "?"}, {**BUYER, "bill_country": 2}, {**BUYER, "bill_city": None}]
    result = remodelled(with_column(DIM_CUSTOMER, column), rows, EVERYONE)
    assert reasons(result) == [
        ("bill_country", "comes from a row of 'city' that does not exist", [1]),
        ("bill_country", "comes from a row of 'country' that does not exist", [2]),
        ("bill_country", "is NULL", [3]),
    ]
    assert values(result, "customer_id") == [1]


def test_an_unreadable_value_of_a_joined_row_is_not_taken_for_null() -> None:
    broken = {**ORDER, "ordered_at": None, "shipped_at": None, "_defect": "ordered_at is infinite; due is larger"}
    result = remodelled(FACT_LINE, [A_LINE], {**EVERYONE, "order header": [broken]})
    reason = "comes from a row of 'order header' that could not be read: ordered_at is infinite; due is larger"
    assert reasons(result) == [(column, reason, [0]) for column in ("order_date", "order_time", "sent_date")]
    sent = {**broken, "shipped_at": SOLD_AT}
    result = remodelled(FACT_LINE, [A_LINE], {**EVERYONE, "order header": [sent]})
    assert [column for column, _, _ in reasons(result)] == ["order_date", "order_time"]


def test_values_behind_an_unreadable_reference_are_not_taken_for_null() -> None:
    broken = {**BUYER, "bill_city": None, "_defect": "bill_city is larger than 32 MiB as text"}
    result = remodelled(FACT_LINE, [A_LINE], {**EVERYONE, "customer": [broken]})
    reason = "comes from a row of 'customer' that could not be read: bill_city is larger than 32 MiB as text"
    assert reasons(result) == [("country_id", reason, [0]), ("country", reason, [0])]
