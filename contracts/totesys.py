"""totesys, the back end of a wholesaler: eleven source tables, eleven warehouse tables in three stars.

The source's timestamps are `timestamp(3)` without time zone, in UTC; its agreed and payment dates are texts, YYYY-MM-DD.
"""

from __future__ import annotations

from contracts.column_types import BOOLEAN, DATE, INTEGER, TEXT, TIME, TIMESTAMP, ColumnType, enum, numeric, varchar
from contracts.contract import Contract
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import UNKNOWN, Calendar, Column, Dimension, Fact, Lookup, SourceColumn, SourceTable

MONEY = numeric(10, 2)


def _source(name: str, *, nullable: tuple[str, ...] = (), **columns: ColumnType) -> SourceTable:
    """A source table: its serial key, `columns`, of which those in `nullable` may be NULL, and its two timestamps."""
    every = {f"{name}_id": INTEGER, **columns, "created_at": TIMESTAMP, "last_updated": TIMESTAMP}
    return SourceTable(
        name, (f"{name}_id",), tuple(SourceColumn(column, kind, nullable=column in nullable) for column, kind in every.items())
    )


SOURCE_TABLES = (
    _source("currency", currency_code=varchar(3)),
    _source("payment_type", payment_type_name=enum("SALES_RECEIPT", "SALES_REFUND", "PURCHASE_PAYMENT", "PURCHASE_REFUND")),
    _source("department", department_name=TEXT, location=TEXT, manager=TEXT, nullable=("location", "manager")),
    _source("design", design_name=TEXT, file_location=TEXT, file_name=TEXT),
    _source(
        "address",
        address_line_1=TEXT,
        address_line_2=TEXT,
        district=TEXT,
        city=TEXT,
        postal_code=TEXT,
        country=TEXT,
        phone=TEXT,
        nullable=("address_line_2", "district"),
    ),
    _source("staff", first_name=TEXT, last_name=TEXT, department_id=INTEGER, email_address=TEXT),
    _source(
        "counterparty",
        counterparty_legal_name=TEXT,
        legal_address_id=INTEGER,
        commercial_contact=TEXT,
        delivery_contact=TEXT,
        nullable=("commercial_contact", "delivery_contact"),
    ),
    _source(
        "transaction",
        transaction_type=enum("SALE", "PURCHASE"),
        sales_order_id=INTEGER,
        purchase_order_id=INTEGER,
        nullable=("sales_order_id", "purchase_order_id"),
    ),
    _source(
        "sales_order",
        design_id=INTEGER,
        staff_id=INTEGER,
        counterparty_id=INTEGER,
        units_sold=INTEGER,
        unit_price=MONEY,
        currency_id=INTEGER,
        agreed_delivery_date=TEXT,
        agreed_payment_date=TEXT,
        agreed_delivery_location_id=INTEGER,
    ),
    _source(
        "purchase_order",
        staff_id=INTEGER,
        counterparty_id=INTEGER,
        item_code=TEXT,
        item_quantity=INTEGER,
        item_unit_price=MONEY,
        currency_id=INTEGER,
        agreed_delivery_date=TEXT,
        agreed_payment_date=TEXT,
        agreed_delivery_location_id=INTEGER,
    ),
    _source(
        "payment",
        transaction_id=INTEGER,
        counterparty_id=INTEGER,
        payment_amount=MONEY,
        currency_id=INTEGER,
        payment_type_id=INTEGER,
        paid=BOOLEAN,
        payment_date=TEXT,
        company_ac_number=INTEGER,
        counterparty_ac_number=INTEGER,
    ),
)


def _same(name: str, kind: ColumnType = TEXT, *, nullable: bool = False, references: str | None = None) -> Column:
    """A column that keeps its source column's name and value."""
    return Column(name, kind, FromSource(name), nullable=nullable, references=references)


def _key(name: str, references: str, source: str | None = None) -> Column:
    """A fact's reference to a dimension."""
    return Column(name, INTEGER, FromSource(source or name), references=references)


def _agreed(name: str) -> Column:
    """A date that the source spells as a text."""
    return Column(name, DATE, ParsedDate(name), references="dim_date")


DIM_DATE = Calendar(
    "dim_date",
    key=("date_id",),
    columns=(
        Column("date_id", DATE, CalendarPart("date")),
        Column("year", INTEGER, CalendarPart("year")),
        Column("month", INTEGER, CalendarPart("month")),
        Column("day", INTEGER, CalendarPart("day")),
        Column("day_of_week", INTEGER, CalendarPart("day_of_week")),
        Column("day_name", TEXT, CalendarPart("day_name")),
        Column("month_name", TEXT, CalendarPart("month_name")),
        Column("quarter", INTEGER, CalendarPart("quarter")),
    ),
)


def _dimension(name: str, source: str, key: str, *columns: Column, lookups: tuple[Lookup, ...] = ()) -> Dimension:
    """A dimension with its key before `columns`."""
    key_column = Column(key, INTEGER, FromSource(f"{source}_id"))
    return Dimension(name, (key,), (key_column, *columns), source, lookups)


def _fact(name: str, source: str, surrogate: str, *columns: Column) -> Fact:
    """A fact with its business key and its two timestamps, each split into date and time, before `columns`."""
    stamps = (
        Column("created_date", DATE, DateOf("created_at"), references="dim_date"),
        Column("created_time", TIME, TimeOf("created_at")),
        Column("last_updated_date", DATE, DateOf("last_updated"), references="dim_date"),
        Column("last_updated_time", TIME, TimeOf("last_updated")),
    )
    return Fact(
        name,
        key=(f"{source}_id",),
        columns=(_same(f"{source}_id", INTEGER), *stamps, *columns),
        source=source,
        version=("last_updated_date", "last_updated_time"),
        surrogate=surrogate,
    )


def _legal(suffix: str, source: str, *, nullable: bool = False) -> Column:
    """A part of a counterparty's legal address."""
    return Column(f"counterparty_legal_{suffix}", TEXT, FromLookup("address", source), nullable=nullable)


WAREHOUSE_TABLES = (
    DIM_DATE,
    _dimension(
        "dim_currency",
        "currency",
        "currency_id",
        _same("currency_code"),
        Column("currency_name", TEXT, CurrencyNameOf("currency_code")),
    ),
    _dimension("dim_payment_type", "payment_type", "payment_type_id", _same("payment_type_name")),
    _dimension("dim_design", "design", "design_id", _same("design_name"), _same("file_location"), _same("file_name")),
    _dimension(
        "dim_location",
        "address",
        "location_id",
        _same("address_line_1"),
        _same("address_line_2", nullable=True),
        _same("district", nullable=True),
        _same("city"),
        _same("postal_code"),
        _same("country"),
        _same("phone"),
    ),
    _dimension(
        "dim_staff",
        "staff",
        "staff_id",
        _same("first_name"),
        _same("last_name"),
        Column("department_name", TEXT, FromLookup("department", "department_name")),
        Column("location", TEXT, FromLookup("department", "location", absent=UNKNOWN)),
        _same("email_address"),
        lookups=(Lookup("department", on=("department_id",)),),
    ),
    _dimension(
        "dim_counterparty",
        "counterparty",
        "counterparty_id",
        _same("counterparty_legal_name"),
        _legal("address_line_1", "address_line_1"),
        _legal("address_line_2", "address_line_2", nullable=True),
        _legal("district", "district", nullable=True),
        _legal("city", "city"),
        _legal("postal_code", "postal_code"),
        _legal("country", "country"),
        _legal("phone_number", "phone"),
        lookups=(Lookup("address", on=("legal_address_id",)),),
    ),
    _dimension(
        "dim_transaction",
        "transaction",
        "transaction_id",
        _same("transaction_type"),
        _same("sales_order_id", INTEGER, nullable=True),
        _same("purchase_order_id", INTEGER, nullable=True),
    ),
    _fact(
        "fact_sales_order",
        "sales_order",
        "sales_record_id",
        _key("sales_staff_id", "dim_staff", source="staff_id"),
        _key("counterparty_id", "dim_counterparty"),
        _same("units_sold", INTEGER),
        _same("unit_price", MONEY),
        _key("currency_id", "dim_currency"),
        _key("design_id", "dim_design"),
        _agreed("agreed_payment_date"),
        _agreed("agreed_delivery_date"),
        _key("agreed_delivery_location_id", "dim_location"),
    ),
    _fact(
        "fact_purchase_order",
        "purchase_order",
        "purchase_record_id",
        _key("staff_id", "dim_staff"),
        _key("counterparty_id", "dim_counterparty"),
        _same("item_code"),
        _same("item_quantity", INTEGER),
        _same("item_unit_price", MONEY),
        _key("currency_id", "dim_currency"),
        _agreed("agreed_delivery_date"),
        _agreed("agreed_payment_date"),
        _key("agreed_delivery_location_id", "dim_location"),
    ),
    _fact(
        "fact_payment",
        "payment",
        "payment_record_id",
        _key("transaction_id", "dim_transaction"),
        _key("counterparty_id", "dim_counterparty"),
        _same("payment_amount", MONEY),
        _key("currency_id", "dim_currency"),
        _key("payment_type_id", "dim_payment_type"),
        _same("paid", BOOLEAN),
        Column("payment_date", DATE, ParsedDate("payment_date"), references="dim_date"),
    ),
)

CONTRACT = Contract("totesys", "public", "public", SOURCE_TABLES, WAREHOUSE_TABLES)
