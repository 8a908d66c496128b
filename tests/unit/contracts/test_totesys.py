"""The contract compared with the two databases as their owners describe them, written out here a second time."""

from __future__ import annotations

import pytest

from contracts.column_types import ColumnType, Kind
from contracts.origins import CalendarPart, Computed, CurrencyNameOf, DateOf, FromLookup, FromSource, Origin, ParsedDate, TimeOf
from contracts.tables import Calendar, Dimension, Drift, Fact, Lookup
from tests.fixtures.totesys import CONTRACT, SOURCE_TABLES

# name type, `?` where it may be NULL; every table has <table>_id before and created_at, last_updated after these
SOURCE = {
    "address": (
        "address_line_1 text, address_line_2 text?, district text?, city text, postal_code text, country text, phone text"
    ),
    "counterparty": (
        "counterparty_legal_name text, legal_address_id integer, commercial_contact text?, delivery_contact text?"
    ),
    "currency": "currency_code varchar(3)",
    "department": "department_name text, location text?, manager text?",
    "design": "design_name text, file_location text, file_name text",
    "payment_type": "payment_type_name enum SALES_RECEIPT|SALES_REFUND|PURCHASE_PAYMENT|PURCHASE_REFUND",
    "staff": "first_name text, last_name text, department_id integer, email_address text",
    "sales_order": (
        "design_id integer, staff_id integer, counterparty_id integer, units_sold integer, unit_price numeric(10.2), "
        "currency_id integer, agreed_delivery_date text, agreed_payment_date text, agreed_delivery_location_id integer"
    ),
    "purchase_order": (
        "staff_id integer, counterparty_id integer, item_code text, item_quantity integer, item_unit_price numeric(10.2), "
        "currency_id integer, agreed_delivery_date text, agreed_payment_date text, agreed_delivery_location_id integer"
    ),
    "transaction": "transaction_type enum SALE|PURCHASE, sales_order_id integer?, purchase_order_id integer?",
    "payment": (
        "transaction_id integer, counterparty_id integer, payment_amount numeric(10.2), currency_id integer, "
        "payment_type_id integer, paid boolean, payment_date text, company_ac_number integer, counterparty_ac_number integer"
    ),
}

# name type, `?` where it may be NULL, `<` where it comes from, `>` the dimension it refers to
WAREHOUSE = {
    "dim_date": (
        "date_id date < part date, year integer < part year, month integer < part month, day integer < part day, "
        "day_of_week integer < part day_of_week, day_name text < part day_name, month_name text < part month_name, "
        "quarter integer < part quarter"
    ),
    "dim_staff": (
        "staff_id integer, first_name text, last_name text, department_name text < department_id.department_name, "
        "location text < department_id.location or (unknown), email_address text"
    ),
    "dim_location": (
        "location_id integer < address_id, address_line_1 text, address_line_2 text?, district text?, city text, "
        "postal_code text, country text, phone text"
    ),
    "dim_design": "design_id integer, design_name text, file_location text, file_name text",
    "dim_currency": "currency_id integer, currency_code text, currency_name text < name of currency_code",
    "dim_counterparty": (
        "counterparty_id integer, counterparty_legal_name text, "
        "counterparty_legal_address_line_1 text < legal_address_id.address_line_1, "
        "counterparty_legal_address_line_2 text? < legal_address_id.address_line_2, "
        "counterparty_legal_district text? < legal_address_id.district, "
        "counterparty_legal_city text < legal_address_id.city, "
        "counterparty_legal_postal_code text < legal_address_id.postal_code, "
        "counterparty_legal_country text < legal_address_id.country, "
        "counterparty_legal_phone_number text < legal_address_id.phone"
    ),
    "dim_payment_type": "payment_type_id integer, payment_type_name text",
    "dim_transaction": "transaction_id integer, transaction_type text, sales_order_id integer?, purchase_order_id integer?",
    "fact_sales_order": (
        "sales_order_id integer, created_date date < date of created_at > dim_date, created_time time < time of created_at, "
        "last_updated_date date < date of last_updated > dim_date, last_updated_time time < time of last_updated, "
        "sales_staff_id integer < staff_id > dim_staff, counterparty_id integer > dim_counterparty, units_sold integer, "
        "unit_price numeric(10.2), currency_id integer > dim_currency, design_id integer > dim_design, "
        "agreed_payment_date date < read agreed_payment_date > dim_date, "
        "agreed_delivery_date date < read agreed_delivery_date > dim_date, agreed_delivery_location_id integer > dim_location"
    ),
    "fact_purchase_order": (
        "purchase_order_id integer, created_date date < date of created_at > dim_date, created_time time < time of created_at, "
        "last_updated_date date < date of last_updated > dim_date, last_updated_time time < time of last_updated, "
        "staff_id integer > dim_staff, counterparty_id integer > dim_counterparty, item_code text, item_quantity integer, "
        "item_unit_price numeric(10.2), currency_id integer > dim_currency, "
        "agreed_delivery_date date < read agreed_delivery_date > dim_date, "
        "agreed_payment_date date < read agreed_payment_date > dim_date, agreed_delivery_location_id integer > dim_location"
    ),
    "fact_payment": (
        "payment_id integer, created_date date < date of created_at > dim_date, created_time time < time of created_at, "
        "last_updated_date date < date of last_updated > dim_date, last_updated_time time < time of last_updated, "
        "transaction_id integer > dim_transaction, counterparty_id integer > dim_counterparty, payment_amount numeric(10.2), "
        "currency_id integer > dim_currency, payment_type_id integer > dim_payment_type, paid boolean, "
        "payment_date date < read payment_date > dim_date"
    ),
}
# name: key, source, joined tables
DIMENSIONS = {
    "dim_staff": ("staff_id", "staff", (Lookup("department", ("department_id",), "department_id"),)),
    "dim_location": ("location_id", "address", ()),
    "dim_design": ("design_id", "design", ()),
    "dim_currency": ("currency_id", "currency", ()),
    "dim_counterparty": ("counterparty_id", "counterparty", (Lookup("address", ("legal_address_id",), "legal_address_id"),)),
    "dim_payment_type": ("payment_type_id", "payment_type", ()),
    "dim_transaction": ("transaction_id", "transaction", ()),
}
# name: business key, source, surrogate key
FACTS = {
    "fact_sales_order": ("sales_order_id", "sales_order", "sales_record_id"),
    "fact_purchase_order": ("purchase_order_id", "purchase_order", "purchase_record_id"),
    "fact_payment": ("payment_id", "payment", "payment_record_id"),
}


def type_text(kind: ColumnType) -> str:
    match kind.kind:
        case Kind.NUMERIC:
            return f"numeric({kind.precision}.{kind.scale})"
        case Kind.TEXT if kind.length:
            return f"varchar({kind.length})"
        case Kind.ENUM:
            return f"enum {'|'.join(kind.labels)}"
        case _:
            return str(kind.kind)


def origin_text(origin: Origin, column: str) -> str:
    match origin:
        case FromSource(name, None):
            return "" if name == column else f" < {name}"
        case FromSource(name, absent):
            return f" < {name} or {absent}"
        case FromLookup(table, name, absent):
            return f" < {table}.{name}" + (f" or {absent}" if absent else "")
        case DateOf(name):
            return f" < date of {name}"
        case TimeOf(name):
            return f" < time of {name}"
        case ParsedDate(name):
            return f" < read {name}"
        case CurrencyNameOf(name):
            return f" < name of {name}"
        case CalendarPart(part):
            return f" < part {part}"
        case Computed(expression):
            return f" < {expression}"


def optional(*, nullable: bool) -> str:
    return "?" if nullable else ""


def test_the_source_has_exactly_these_eleven_tables() -> None:
    assert {table.name for table in CONTRACT.source_tables} == SOURCE.keys()
    assert len(SOURCE) == 11


def test_only_what_the_star_needs_is_read() -> None:
    others = CONTRACT.source_table("counterparty").others
    assert others == ("commercial_contact", "delivery_contact", "created_at", "last_updated")
    assert all(table.drift is Drift.FREEZE for table in CONTRACT.source_tables)


@pytest.mark.parametrize("name", SOURCE)
def test_a_source_table_column_by_column(name: str) -> None:
    (table,) = (table for table in SOURCE_TABLES if table.name == name)
    described = ", ".join(f"{c.name} {type_text(c.type)}{optional(nullable=c.nullable)}" for c in table.columns)
    assert described == f"{name}_id integer, {SOURCE[name]}, created_at timestamp, last_updated timestamp"
    assert table.key == (f"{name}_id",)


def test_the_warehouse_has_exactly_these_eleven_tables() -> None:
    assert {table.name for table in CONTRACT.warehouse_tables} == WAREHOUSE.keys()
    assert len(WAREHOUSE) == 11


@pytest.mark.parametrize("name", WAREHOUSE)
def test_a_warehouse_table_column_by_column(name: str) -> None:
    described = ", ".join(
        f"{c.name} {type_text(c.type)}{optional(nullable=c.nullable)}{origin_text(c.origin, c.name)}"
        + (f" > {c.references}" if c.references else "")
        for c in CONTRACT.warehouse_table(name).columns
    )
    assert described == WAREHOUSE[name]


def test_the_calendar() -> None:
    calendar = CONTRACT.warehouse_table("dim_date")
    assert CONTRACT.calendar is calendar
    assert calendar.key == ("date_id",)


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_dimension_has_one_row_per_key(name: str) -> None:
    table = CONTRACT.warehouse_table(name)
    key, source, lookups = DIMENSIONS[name]
    assert isinstance(table, Dimension)
    assert (table.key, table.source, table.lookups) == ((key,), source, lookups)


@pytest.mark.parametrize("name", FACTS)
def test_the_versions_of_a_fact_are_distinguished_by_last_updated(name: str) -> None:
    table = CONTRACT.warehouse_table(name)
    key, source, surrogate = FACTS[name]
    assert isinstance(table, Fact)
    assert (table.key, table.source, table.lookups) == ((key,), source, ())
    assert (table.version, table.surrogate) == (("last_updated_date", "last_updated_time"), surrogate)


def test_every_warehouse_table_is_a_calendar_a_dimension_or_a_fact_loaded_in_this_order() -> None:
    kinds = [type(table) for table in CONTRACT.warehouse_tables]
    assert kinds == [Calendar, *[Dimension] * len(DIMENSIONS), *[Fact] * len(FACTS)]
