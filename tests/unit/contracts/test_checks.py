from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.calendar import CALENDAR_PARTS
from contracts.column_types import (
    BIGINT,
    DATE,
    INTEGER,
    JSONB,
    TEXT,
    TIME,
    TIMESTAMPTZ,
    UUID,
    ColumnType,
    enum,
    numeric,
    varchar,
    verbatim,
)
from contracts.contract import Contract
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import Column, ContractError, Dimension, SourceColumn, SourceTable, WarehouseTable
from tests.fixtures.small_contract import (
    DIM_DAY,
    DIM_ITEM,
    DIM_MAKER,
    DIM_SHELF,
    FACT_SALE,
    ITEM,
    MAKER,
    SHELF,
    SHOP,
    with_column,
    with_table,
)

NULLABLE_KEY = (
    "identifies rows and may not be nullable; where its source may be NULL, give DateOf and TimeOf a second column by "
    "`absent`, or leave it out of `version`"
)


def refused(table: WarehouseTable, contract: Contract = SHOP) -> str:
    """The first error of a contract with this table."""
    with pytest.raises(ContractError) as caught:
        with_table(contract, table)
    return str(caught.value.args[0])


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (Column("x", BIGINT, FromSource("maker_id")), "is bigint but comes from 'maker_id', which is integer"),
        (Column("x", INTEGER, FromSource("note")), "is integer but comes from 'note', which is text"),
        (Column("x", TEXT, FromSource("price")), "is text but comes from 'price', which is numeric"),
        (
            Column("x", numeric(18, 2), FromSource("price")),
            "is numeric(18,2) but comes from 'price', which is numeric(18,4); give both the same scale",
        ),
        (
            Column("x", numeric(10, 4), FromSource("price")),
            "is numeric(10,4), too narrow for 'price', which is numeric(18,4)",
        ),
        (Column("x", INTEGER, FromSource("maker_id", absent="none")), "has a text for absent values but is not a text"),
        (Column("x", TEXT, FromLookup("shelf", "label")), "comes from 'shelf', which the table does not join"),
        (Column("x", INTEGER, FromLookup("maker", "town")), "is integer but comes from 'town', which is text"),
        (
            Column("x", INTEGER, FromLookup("maker", "maker_id", absent="none")),
            "has a text for absent values but is not a text",
        ),
        (Column("x", DATE, DateOf("born")), "is part of 'born', which is not a timestamp"),
        (Column("x", TIME, TimeOf("opens")), "is part of 'opens', which is not a timestamp"),
        (Column("x", TEXT, DateOf("sold_at")), "is text but holds a date"),
        (Column("x", DATE, TimeOf("sold_at")), "is date but holds a time"),
        (Column("x", DATE, ParsedDate("sold_at")), "is read from 'sold_at', which is not a text"),
        (Column("x", TEXT, ParsedDate("due")), "is text but holds a date"),
        (Column("x", TEXT, CurrencyNameOf("item_id")), "is read from 'item_id', which is not a text"),
        (Column("x", INTEGER, CurrencyNameOf("currency")), "is integer but holds a text"),
        (Column("x", DATE, CalendarPart("date")), "is the calendar's 'date', but the table is not a calendar"),
    ],
)
def test_a_column_must_fit_the_column_it_comes_from(column: Column, why: str) -> None:
    assert refused(with_column(DIM_ITEM, column)) == f"'dim_item.x' {why}"


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (with_column(FACT_SALE, Column("x", TEXT, FromSource("y"))), "source table 'item' has no column 'y'"),
        (replace(DIM_MAKER, source="makers"), "contract 'shop' has no source table 'makers'"),
        (replace(DIM_MAKER, key=("maker",)), "warehouse table 'dim_maker' has no column 'maker'"),
        (
            with_column(DIM_MAKER, Column("maker_id", INTEGER, FromSource("maker_id"), nullable=True)),
            f"'dim_maker.maker_id' {NULLABLE_KEY}",
        ),
        (
            with_column(DIM_MAKER, Column("maker_id", TEXT, FromSource("maker_name"))),
            "the key of 'dim_maker' is not the key (maker_id) of 'maker', column by column; a delete could not be found",
        ),
        (
            replace(DIM_SHELF, key=("label", "row")),
            "the key of 'dim_shelf' is not the key (row, label) of 'shelf', column by column; a delete could not be found",
        ),
        (
            with_column(FACT_SALE, Column("sold_time", TIME, TimeOf("sold_at"), nullable=True)),
            f"'fact_sale.sold_time' {NULLABLE_KEY}",
        ),
        (
            with_column(FACT_SALE, Column("item_id", INTEGER, FromSource("item_id"), references="dim_shelf")),
            "'fact_sale.item_id' refers to 'dim_shelf', whose key is not one column",
        ),
        (
            with_column(FACT_SALE, Column("item_id", INTEGER, FromSource("item_id"), references="dim_thing")),
            "contract 'shop' has no warehouse table 'dim_thing'",
        ),
        (
            with_column(FACT_SALE, Column("due_date", DATE, ParsedDate("due"), references="dim_item")),
            "'fact_sale.due_date' is date but refers to 'dim_item.item_id', which is integer",
        ),
        (
            with_column(DIM_DAY, Column("week", INTEGER, CalendarPart("week"))),
            f"'dim_day.week' is not a part of a date; the calendar has {sorted(CALENDAR_PARTS)}",
        ),
        (
            with_column(DIM_DAY, Column("day", INTEGER, CalendarPart("date"))),
            "'dim_day.day' is integer but contains the calendar's 'date', which is date",
        ),
        (
            with_column(DIM_DAY, Column("weekday", TEXT, CalendarPart("day_of_week"))),
            "'dim_day.weekday' is text but contains the calendar's 'day_of_week', which is integer",
        ),
        (
            with_column(replace(DIM_DAY, key=("year",)), Column("year", INTEGER, CalendarPart("year"))),
            "'dim_day.year' is in the key of a calendar, which must be the date alone",
        ),
        (
            with_column(DIM_DAY, Column("x", TEXT, FromSource("note"))),
            "'dim_day.x' belongs to a calendar and must be a part of a date",
        ),
        (
            replace(DIM_MAKER, columns=(*DIM_MAKER.columns, DIM_MAKER.columns[1])),
            "'dim_maker' has two columns 'maker_name'",
        ),
        (replace(FACT_SALE, surrogate="item_id"), "'fact_sale' has two columns 'item_id'"),
        (replace(DIM_ITEM, surrogate="sold_time"), "'fact_sale' has two columns 'sold_time'"),
        (
            replace(DIM_ITEM, history=True, surrogate="valid_to"),
            "'dim_item_history' has two columns 'valid_to'",
        ),
        (
            replace(FACT_SALE, as_of=("sold_date", "due_date")),
            "'fact_sale' needs for `as_of` a timestamp, a date, or a date and a time of day",
        ),
        (
            replace(FACT_SALE, as_of=("sold_date", "sold_time")),
            "'fact_sale' has `as_of`, but refers to no dimension with `history: true`",
        ),
        (replace(DIM_ITEM, surrogate="_number"), "'dim_item._number' begins with '_', as Starlift's own columns do"),
        (replace(FACT_SALE, version=("item_id",)), "the key and the version of 'fact_sale' repeat 'item_id'"),
        (
            with_column(DIM_MAKER, Column("_run", TEXT, FromSource("town"))),
            "'dim_maker._run' begins with '_', as Starlift's own columns do",
        ),
    ],
)
def test_a_warehouse_table_must_not_contradict_itself(table: WarehouseTable, why: str) -> None:
    assert refused(table) == why


def test_two_tables_of_one_name_are_refused() -> None:
    with pytest.raises(ContractError, match="two warehouse tables or views 'dim_maker'"):
        replace(SHOP, warehouse_tables=(*SHOP.warehouse_tables, DIM_MAKER))
    with pytest.raises(ContractError, match="two source tables 'maker'"):
        replace(SHOP, source_tables=(*SHOP.source_tables, MAKER))


def test_a_wider_number_and_an_enum_as_text_fit() -> None:
    wider = replace(ITEM, columns=(*ITEM.columns, SourceColumn("tax", numeric(6, 2)), SourceColumn("hue", enum("red"))))
    columns = (
        *DIM_ITEM.columns,
        Column("tax", numeric(8, 2), FromSource("tax")),
        Column("hue", varchar(10), FromSource("hue")),
    )
    tables = tuple(replace(DIM_ITEM, columns=columns) if table is DIM_ITEM else table for table in SHOP.warehouse_tables)
    replace(SHOP, source_tables=(MAKER, wider, SHELF), warehouse_tables=tables)


def test_only_a_fact_may_reference_a_dimension() -> None:
    assert "which only a fact may" in refused(
        with_column(DIM_ITEM, Column("day", DATE, DateOf("sold_at"), references="dim_day"))
    )


def test_a_fallback_column_must_have_the_same_type() -> None:
    item = replace(ITEM, columns=(*ITEM.columns, SourceColumn("made_at", TIMESTAMPTZ)))
    contract = replace(SHOP, source_tables=(MAKER, item, SHELF))
    column = Column("sold_date", DATE, DateOf("sold_at", absent="made_at"))
    assert refused(with_column(FACT_SALE, column), contract) == (
        "'fact_sale.sold_date' is part of 'sold_at', which is timestamp, but where that is NULL of a timestamptz"
    )


def test_a_table_must_not_have_the_name_of_a_fact_s_view() -> None:
    with pytest.raises(ContractError, match="two warehouse tables or views 'fact_sale_current'"):
        replace(SHOP, warehouse_tables=(*SHOP.warehouse_tables, replace(DIM_MAKER, name="fact_sale_current")))


def test_a_uuid_key_must_stay_a_uuid() -> None:
    thing = SourceTable("thing", ("thing_id",), (SourceColumn("thing_id", UUID),))
    dimension = Dimension("dim_thing", ("thing_id",), (Column("thing_id", UUID, FromSource("thing_id")),), "thing")
    contract = replace(SHOP, source_tables=(*SHOP.source_tables, thing), warehouse_tables=(*SHOP.warehouse_tables, dimension))
    other = with_column(dimension, Column("thing_id", JSONB, FromSource("thing_id")))
    assert refused(other, contract) == "'dim_thing.thing_id' is jsonb but comes from 'thing_id', which is uuid"


def test_columns_that_cannot_be_inferred_must_be_nullable_in_a_referenced_dimension() -> None:
    item = replace(ITEM, columns=(*ITEM.columns, SourceColumn("extra", JSONB)))
    contract = replace(SHOP, source_tables=(MAKER, item, SHELF))
    with_table(contract, with_column(DIM_ITEM, Column("extra", JSONB, FromSource("extra"), nullable=True)))
    assert "whose 'extra' must be nullable: an inferred member has none" in refused(
        with_column(DIM_ITEM, Column("extra", JSONB, FromSource("extra"))), contract
    )


@pytest.mark.parametrize("kind", [TIME, JSONB, verbatim("double precision"), verbatim("numeric(5,2)[]")])
def test_a_key_must_have_a_type_that_can_be_paged_by(kind: ColumnType) -> None:
    odd = SourceTable("odd", ("odd_id",), (SourceColumn("odd_id", kind),))
    with pytest.raises(ContractError, match=r"'odd\.odd_id' is a key and must be integer, bigint, numeric, text, .*, not .+$"):
        replace(SHOP, source_tables=(*SHOP.source_tables, odd))


@pytest.mark.parametrize("name", ["a/b", "a\n", "\x1b[0m"])
def test_a_source_table_may_not_have_a_name_that_an_object_cannot_have(name: str) -> None:
    odd = SourceTable(name, ("id",), (SourceColumn("id", INTEGER),))
    with pytest.raises(ContractError, match=r"its name has a '/' or a control character, .*; give it another name in the"):
        replace(SHOP, source_tables=(*SHOP.source_tables, odd))
