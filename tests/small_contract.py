"""A small star that has what totesys lacks: every kind of value, a text key, a composite key, optional joins, awkward names."""

from __future__ import annotations

from dataclasses import replace

from contracts.column_types import BIGINT, BOOLEAN, DATE, INTEGER, TEXT, TIME, TIMESTAMP, enum, numeric, varchar
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import Column, Contract, Lookup, SourceColumn, SourceTable, TableKind, WarehouseTable

MAKER = SourceTable(
    "maker",
    ("maker_id",),
    (
        SourceColumn("maker_id", INTEGER),
        SourceColumn("maker_name", TEXT),
        SourceColumn("town", TEXT, nullable=True),
        SourceColumn("capital", numeric(12, 2), nullable=True),
    ),
)
ITEM = SourceTable(
    "item",
    ("item_id",),
    (
        SourceColumn("item_id", INTEGER),
        SourceColumn("maker_id", INTEGER, nullable=True),
        SourceColumn("serial", BIGINT, nullable=True),
        SourceColumn("price", numeric(18, 4), nullable=True),
        SourceColumn("code", varchar(3), nullable=True),
        SourceColumn("note", TEXT, nullable=True),
        SourceColumn("good", BOOLEAN, nullable=True),
        SourceColumn("born", DATE, nullable=True),
        SourceColumn("opens", TIME, nullable=True),
        SourceColumn("sold_at", TIMESTAMP),
        SourceColumn("mood", enum("calm", "wild"), nullable=True),
        SourceColumn("due", TEXT, nullable=True),
        SourceColumn("currency", TEXT, nullable=True),
    ),
)
SHELF = SourceTable(
    "shelf", ("row", "label"), (SourceColumn("row", INTEGER), SourceColumn("label", TEXT), SourceColumn("width", INTEGER))
)

DIM_DAY = WarehouseTable(
    "dim_day",
    TableKind.CALENDAR,
    ("day",),
    (Column("day", DATE, CalendarPart("date")), Column("weekday", TEXT, CalendarPart("day_name"))),
)
DIM_MAKER = WarehouseTable(
    "dim_maker",
    TableKind.DIMENSION,
    ("maker_id",),
    (
        Column("maker_id", INTEGER, FromSource("maker_id")),
        Column("maker_name", TEXT, FromSource("maker_name")),
        Column("town", TEXT, FromSource("town", absent="(unknown)")),
    ),
    "maker",
)
DIM_SHELF = WarehouseTable(
    "dim_shelf",
    TableKind.DIMENSION,
    ("row", "label"),
    (
        Column("row", INTEGER, FromSource("row")),
        Column("label", TEXT, FromSource("label")),
        Column("width", INTEGER, FromSource("width")),
    ),
    "shelf",
)
DIM_ITEM = WarehouseTable(
    "dim_item",
    TableKind.DIMENSION,
    ("item_id",),
    (
        Column("item_id", INTEGER, FromSource("item_id")),
        Column("serial", BIGINT, FromSource("serial"), nullable=True),
        Column("price", numeric(18, 4), FromSource("price"), nullable=True),
        Column("code", varchar(3), FromSource("code"), nullable=True),
        Column("note", TEXT, FromSource("note"), nullable=True),
        Column("good", BOOLEAN, FromSource("good"), nullable=True),
        Column("born", DATE, FromSource("born"), nullable=True),
        Column("opens", TIME, FromSource("opens"), nullable=True),
        Column("sold_at", TIMESTAMP, FromSource("sold_at")),
        Column("mood", TEXT, FromSource("mood"), nullable=True),
        Column("maker_town", TEXT, FromLookup("maker", "town"), nullable=True),
        Column("maker_capital", numeric(12, 2), FromLookup("maker", "capital"), nullable=True),
    ),
    "item",
    (Lookup("maker", on="maker_id"),),
)
FACT_SALE = WarehouseTable(
    "fact_sale",
    TableKind.FACT,
    ("item_id",),
    (
        Column("item_id", INTEGER, FromSource("item_id"), references="dim_item"),
        Column("sold_date", DATE, DateOf("sold_at"), references="dim_day"),
        Column("sold_time", TIME, TimeOf("sold_at")),
        Column("due_date", DATE, ParsedDate("due"), nullable=True, references="dim_day"),
        Column("currency_name", TEXT, CurrencyNameOf("currency"), nullable=True),
    ),
    "item",
    version=("sold_date", "sold_time"),
    surrogate="sale_id",
)

SHOP = Contract("shop", "public", "public", (MAKER, ITEM, SHELF), (DIM_DAY, DIM_MAKER, DIM_SHELF, DIM_ITEM, FACT_SALE))

SCHEMA = """
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE TABLE maker (maker_id int PRIMARY KEY, maker_name text NOT NULL, town text, capital numeric(12, 2));
CREATE TABLE item (
    item_id int PRIMARY KEY, maker_id int REFERENCES maker, serial bigint, price numeric(18, 4), code varchar, note text,
    good boolean, born date, opens time, sold_at timestamp NOT NULL, mood mood, due text, currency character(4)
);
CREATE TABLE shelf ("row" int, label text, width int NOT NULL, PRIMARY KEY ("row", label));
"""


def with_table(contract: Contract, table: WarehouseTable) -> Contract:
    """The contract with `table` in the place of the one of its name."""
    tables = tuple(table if known.name == table.name else known for known in contract.warehouse_tables)
    return replace(contract, warehouse_tables=tables)


def with_column(table: WarehouseTable, column: Column) -> WarehouseTable:
    """The table with `column` in the place of the one of its name, or behind the others."""
    known = any(old.name == column.name for old in table.columns)
    columns = tuple(column if old.name == column.name else old for old in table.columns)
    return replace(table, columns=columns if known else (*columns, column))
