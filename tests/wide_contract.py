"""A star whose names all need quotes, in schemas of their own, with every kind of value that a contract may have.

What Starlift knows of totesys would fail here.
"""

from __future__ import annotations

from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    BYTEA,
    DATE,
    INTEGER,
    JSONB,
    TEXT,
    TIME,
    TIMESTAMPTZ,
    UUID,
    numeric,
    verbatim,
)
from contracts.origins import CalendarPart, DateOf, FromLookup, FromSource, TimeOf
from contracts.tables import Column, Contract, Lookup, SourceColumn, SourceTable, TableKind, WarehouseTable

SOURCE_SCHEMA, WAREHOUSE_SCHEMA = "Point of Sale", "dwh.2026"
TAGS, SIZES, RATIO, ADDRESS = verbatim("text[]"), verbatim("integer[]"), verbatim("double precision"), verbatim("inet")
INTERVAL, MONEY = verbatim("interval"), verbatim("money")

STORE = SourceTable(
    "Store",
    ("Code",),
    (
        SourceColumn("Code", TEXT),
        SourceColumn("name", TEXT),
        SourceColumn("opened", DATE, nullable=True),
        SourceColumn("opens at", TIME, nullable=True),
    ),
)
RECEIPT = SourceTable(
    'receipt "v2" all',
    ("Receipt Id",),
    (
        SourceColumn("Receipt Id", UUID),
        SourceColumn("store", TEXT, nullable=True),
        SourceColumn("paid At", TIMESTAMPTZ),
        SourceColumn("total €", numeric(12, 2), nullable=True),
        SourceColumn("void?", BOOLEAN, nullable=True),
        SourceColumn("payload", JSONB, nullable=True),
        SourceColumn("tags", TAGS, nullable=True),
        SourceColumn("sizes", SIZES, nullable=True),
        SourceColumn("image", BYTEA, nullable=True),
        SourceColumn("ratio", RATIO, nullable=True),
        SourceColumn("till's address", ADDRESS, nullable=True),
        SourceColumn("took", INTERVAL, nullable=True),
        SourceColumn("tip", MONEY, nullable=True),
    ),
)
LINE = SourceTable(
    "line",
    ("Receipt Id", "No", "side"),
    (
        SourceColumn("Receipt Id", UUID),
        SourceColumn("No", BIGINT),
        SourceColumn("side", TEXT),
        SourceColumn("qty", INTEGER),
        SourceColumn("last_updated", TIMESTAMPTZ),
    ),
)


def _same(name: str, table: SourceTable) -> Column:
    column = table.column(name)
    return Column(f"{name}'s" if name == "name" else name, column.type, FromSource(name), nullable=column.nullable)


DIM_DAY = WarehouseTable("Day", TableKind.CALENDAR, ("the day",), (Column("the day", DATE, CalendarPart("date")),))
DIM_STORE = WarehouseTable(
    "d.Store", TableKind.DIMENSION, ("Code",), tuple(_same(column.name, STORE) for column in STORE.columns), "Store"
)
DIM_RECEIPT = WarehouseTable(
    "Receipt",
    TableKind.DIMENSION,
    ("Receipt Id",),
    (
        *(_same(column.name, RECEIPT) for column in RECEIPT.columns if column.name != "store"),
        Column("store's name", TEXT, FromLookup("Store", "name", absent="(no store)")),
    ),
    RECEIPT.name,
    (Lookup("Store", on="store"),),
)
FACT_LINE = WarehouseTable(
    "Line; DROP TABLE x",
    TableKind.FACT,
    ("Receipt Id", "No", "side"),
    (
        Column("Receipt Id", UUID, FromSource("Receipt Id"), references="Receipt"),
        Column("No", BIGINT, FromSource("No")),
        Column("side", TEXT, FromSource("side")),
        Column("qty", INTEGER, FromSource("qty")),
        Column("changed on", DATE, DateOf("last_updated"), references="Day"),
        Column("changed at", TIME, TimeOf("last_updated")),
        Column("changed", TIMESTAMPTZ, FromSource("last_updated")),
    ),
    "line",
    version=("changed",),
    surrogate="line no.",
)
WIDE = Contract(
    "wide",
    SOURCE_SCHEMA,
    WAREHOUSE_SCHEMA,
    (STORE, RECEIPT, LINE),
    (DIM_DAY, DIM_STORE, DIM_RECEIPT, FACT_LINE),
)
SCHEMA = """
CREATE SCHEMA "Point of Sale";
SET search_path = "Point of Sale";
CREATE TABLE "Store" ("Code" text PRIMARY KEY, name text NOT NULL, opened date, "opens at" time);
CREATE TABLE "receipt ""v2"" all" (
    "Receipt Id" uuid PRIMARY KEY, store text REFERENCES "Store", "paid At" timestamptz NOT NULL, "total €" numeric(12, 2),
    "void?" boolean, payload jsonb, tags text[], sizes int[], image bytea, ratio float8, "till's address" inet,
    took interval, tip money
);
CREATE TABLE line (
    "Receipt Id" uuid NOT NULL, "No" bigint, side text, qty int NOT NULL, last_updated timestamptz NOT NULL,
    PRIMARY KEY ("Receipt Id", "No", side)
);
"""
