from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from contracts import expressions
from contracts.canonical import canonical_document
from contracts.column_types import DATE, TEXT, TIME, TIMESTAMP, ColumnType, Kind, numeric
from contracts.contract import Contract
from contracts.origins import CalendarPart, Computed, CurrencyNameOf, DateOf, FromLookup, FromSource, Origin, ParsedDate, TimeOf
from contracts.tables import Calendar, Column, Dimension, Drift, Fact, Lookup, SourceColumn, SourceTable, WarehouseTable
from tests.fixtures.small_contract import DIM_ITEM, SHOP, with_table
from tests.fixtures.totesys import CONTRACT as TOTESYS
from tests.fixtures.wide_contract import WIDE

TABLES: dict[str, type[Any]] = {"calendar": Calendar, "dimension": Dimension, "fact": Fact}
ORIGINS: dict[str, type[Any]] = {
    "from_source": FromSource,
    "from_lookup": FromLookup,
    "date_of": DateOf,
    "time_of": TimeOf,
    "parsed_date": ParsedDate,
    "currency_name_of": CurrencyNameOf,
    "calendar_part": CalendarPart,
}
VALUES: dict[str, Callable[[str], Any]] = {
    "whole": int,
    "decimal": Decimal,
    "text": str,
    "boolean": "True".__eq__,
    "date": dt.date.fromisoformat,
    "timestamp": dt.datetime.fromisoformat,
}


def read_type(document: dict[str, Any]) -> ColumnType:
    fields = document | {"kind": Kind(document["kind"]), "labels": tuple(document.get("labels", ()))}
    return ColumnType(**fields)


def read_expression(document: dict[str, Any]) -> expressions.Expression:
    match document:
        case {"operation": name, "arguments": arguments}:
            return expressions.Operation(name, tuple(map(read_expression, arguments)))
        case {"literal": None}:
            return expressions.Literal(None)
        case {"literal": text, "type": kind}:
            return expressions.Literal(VALUES[kind](text))
        case _:
            return expressions.ReadColumn(document.get("lookup"), document["column"], read_type(document["type"]))


def read_origin(document: dict[str, Any]) -> Origin:
    if "computed" in document:
        return Computed(read_expression(document["computed"]))
    (kind,) = ORIGINS.keys() & document.keys()
    further = {name: value for name, value in document.items() if name != kind}
    origin: Origin = ORIGINS[kind](document[kind], **further)
    return origin


def read_table(document: dict[str, Any]) -> WarehouseTable:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}
    fields["columns"] = tuple(
        Column(**(column | {"type": read_type(column["type"]), "origin": read_origin(column["origin"])}))
        for column in document["columns"]
    )
    if "lookups" in document:
        fields["lookups"] = tuple(
            Lookup(**lookup | {"on": (lookup["on"],) if isinstance(lookup["on"], str) else tuple(lookup["on"])})
            for lookup in document["lookups"]
        )
    if "where" in document:
        fields["where"] = read_expression(document["where"])
    table: WarehouseTable = TABLES[str(fields.pop("kind"))](**fields)
    return table


def read_contract(document: dict[str, Any]) -> Contract:
    sources = tuple(
        SourceTable(
            table["name"],
            tuple(table["key"]),
            tuple(SourceColumn(**(column | {"type": read_type(column["type"])})) for column in table["columns"]),
            Drift(table.get("drift", "freeze")),
            table.get("schema"),
            table.get("relation"),
            full=table.get("full", False),
            row_id=table.get("row_id"),
        )
        for table in document["source_tables"]
    )
    stars = tuple(read_table(table) for table in document["warehouse_tables"])
    return Contract(document["name"], document["source_schema"], document["warehouse_schema"], sources, stars)


PRICE, NEXT_NOTE = expressions.ReadColumn(None, "price", numeric(18, 4)), expressions.ReadColumn("next", "note", TEXT)
SOLD, MOMENT = expressions.ReadColumn(None, "sold_at", TIMESTAMP), dt.datetime.fromisoformat("2026-01-02 03:04:05")
SIZE = expressions.Operation(
    "case",
    (
        *(expressions.Operation("less", (PRICE, expressions.Literal(Decimal("1.50")))), expressions.Literal("small")),
        *(expressions.Operation("greater", (PRICE, expressions.Literal(1))), NEXT_NOTE),
        *(
            expressions.Operation("equal", (SOLD, expressions.Literal(MOMENT))),
            NEXT_NOTE,
        ),
        *(expressions.Literal(value=True), expressions.Literal(None)),
        expressions.Literal(""),
    ),
)
JOINED_ITEM = replace(
    DIM_ITEM,
    columns=(
        *DIM_ITEM.columns,
        Column("born_on", DATE, DateOf("sold_at", "sold_at", "next"), nullable=True),
        Column("born_at", TIME, TimeOf("sold_at", lookup="next"), nullable=True),
        Column("due", DATE, ParsedDate("due", "next"), nullable=True),
        Column("currency", TEXT, CurrencyNameOf("currency", "next"), nullable=True),
        Column("size", TEXT, Computed(SIZE), nullable=True),
    ),
    lookups=(
        *DIM_ITEM.lookups,
        Lookup("item", on=("serial",), name="next"),
        Lookup("shelf", on=("item_id", "note"), via="next"),
    ),
    where=expressions.Operation("is_null", (SOLD,)),
)
JOINED = with_table(SHOP, JOINED_ITEM)
WITH_UNKNOWN = with_table(SHOP, replace(DIM_ITEM, unknown="0"))
CARRYING = replace(
    TOTESYS,
    name="carrying",
    source_tables=tuple(replace(t, drift=Drift.CARRY, schema="other", relation="name") for t in TOTESYS.source_tables),
)


@pytest.mark.parametrize("contract", [SHOP, TOTESYS, WIDE, CARRYING, JOINED, WITH_UNKNOWN])
def test_a_contract_can_be_read_from_its_document(contract: Contract) -> None:
    """The document that identifies a contract contains all of it but the columns that nothing reads."""
    document = json.loads(json.dumps(canonical_document(contract)))
    read_columns = tuple(replace(table, others=()) for table in contract.source_tables)
    assert read_contract(document) == replace(contract, source_tables=read_columns)


def test_the_identity_of_a_contract_is_stable() -> None:
    """A changed identity makes the next run read every source in full, so it may change only with a new FORMAT."""
    assert TOTESYS.fingerprint == "7d0fcf0ab16e9370"


def test_an_unnamed_lookup_of_one_column_is_serialised_as_before() -> None:
    (item,) = [table for table in canonical_document(JOINED)["warehouse_tables"] if table["name"] == "dim_item"]
    assert item["lookups"] == [
        {"table": "maker", "on": "maker_id"},
        {"table": "item", "on": "serial", "name": "next"},
        {"table": "shelf", "on": ["item_id", "note"], "via": "next"},
    ]
