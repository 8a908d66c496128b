"""Joins that a contract may declare, and those that contradict themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.checks import join_alike
from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    DATE,
    INTEGER,
    TEXT,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    ColumnType,
    enum,
    numeric,
    varchar,
    verbatim,
)
from contracts.contract import Contract
from contracts.origins import CurrencyNameOf, DateOf, FromLookup
from contracts.tables import Column, ContractError, Join, Lookup, SourceColumn, SourceTable, WarehouseTable
from tests.fixtures.small_contract import DIM_ITEM, FACT_SALE, ITEM, MAKER, SHELF, SHOP, with_column, with_table

ALIKE = (
    "join integers with integers, numerics with numerics of the same scale, texts with texts, and other types with themselves"
)


def refused(table: WarehouseTable, contract: Contract = SHOP) -> str:
    """Why a contract with this table contradicts itself."""
    with pytest.raises(ContractError) as caught:
        with_table(contract, table)
    return str(caught.value.args[0])


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (replace(DIM_ITEM, lookups=(Lookup("maker", on=("builder",)),)), "source table 'item' has no column 'builder'"),
        (replace(DIM_ITEM, lookups=(Lookup("builder", on=("maker_id",)),)), "contract 'shop' has no source table 'builder'"),
        (
            replace(DIM_ITEM, lookups=(Lookup("shelf", on=("maker_id",)),)),
            "'dim_item' joins 'shelf' by (maker_id), but its key is (row, label); name one column for each column of the key",
        ),
        (
            replace(DIM_ITEM, lookups=(Lookup("shelf", on=("maker_id", "serial")),)),
            f"'dim_item' joins 'shelf' by 'serial', which is bigint, but 'label' of its key is text; {ALIKE}",
        ),
        (
            replace(DIM_ITEM, lookups=(*DIM_ITEM.lookups, Lookup("maker", on=("maker_id",)))),
            "'dim_item' has two lookups 'maker'; give each a name of its own",
        ),
        (
            replace(DIM_ITEM, lookups=(Lookup("maker", on=("maker_id",), via="owner"),)),
            "'dim_item' joins 'maker' via 'owner', which is not one of its lookups",
        ),
        (
            replace(DIM_ITEM, lookups=(Lookup("item", ("item_id",), "a", via="b"), Lookup("item", ("item_id",), "b", via="a"))),
            "'dim_item' joins 'a' via 'b', which never leads back to 'item'; correct `via`",
        ),
        (
            replace(DIM_ITEM, lookups=(*DIM_ITEM.lookups, Lookup("shelf", on=("item_id", "note"), via="maker"))),
            "source table 'maker' has no column 'item_id'",
        ),
        (
            with_column(FACT_SALE, Column("x", DATE, DateOf("sold_at", lookup="maker"))),
            "'fact_sale.x' comes from 'maker', which the table does not join",
        ),
        (
            with_column(DIM_ITEM, Column("x", DATE, DateOf("town", lookup="maker"))),
            "'dim_item.x' is part of 'town', which is not a timestamp",
        ),
        (
            with_column(DIM_ITEM, Column("x", TEXT, CurrencyNameOf("currency", lookup="maker"))),
            "source table 'maker' has no column 'currency'",
        ),
    ],
)
def test_a_join_that_contradicts_itself_is_refused(table: WarehouseTable, why: str) -> None:
    assert refused(table) == why


def test_a_table_may_be_joined_twice_by_a_composite_key_and_from_another_lookup() -> None:
    lookups = (
        Lookup("shelf", on=("maker_id", "maker_name"), name="their shelf", via="maker"),
        *DIM_ITEM.lookups,
        Lookup("maker", on=("item_id",), name="namesake"),
        Lookup("shelf", on=("item_id", "note")),
    )
    columns = (Column("width", INTEGER, FromLookup("their shelf", "width"), nullable=True),)
    table = replace(DIM_ITEM, lookups=lookups, columns=(*DIM_ITEM.columns, *columns))
    contract = with_table(SHOP, table)
    to_maker, to_shelf = Join("item", ("maker_id",), "maker"), Join("maker", ("maker_id", "maker_name"), "shelf")
    assert list(table.paths) == ["maker", "namesake", "shelf", "their shelf"]
    assert table.paths["their shelf"] == (to_maker, to_shelf)
    assert contract.paths_of("item")[-1] == (to_maker, to_shelf)
    assert to_shelf in contract.joins


def test_a_text_is_not_a_tuple_of_columns() -> None:
    with pytest.raises(ContractError, match="`on` of the lookup 'maker' is a tuple of columns, not 'maker_id'"):
        Lookup("maker", on="maker_id")  # type: ignore[arg-type]


@pytest.mark.parametrize("on", [TEXT, numeric(10, 2)])
def test_a_join_needs_types_that_compare_alike(on: ColumnType) -> None:
    city = SourceTable("city", ("city_id",), (SourceColumn("city_id", INTEGER),))
    item = replace(ITEM, columns=(*ITEM.columns, SourceColumn("city_code", on)))
    contract = replace(SHOP, source_tables=(MAKER, item, SHELF, city))
    assert refused(replace(DIM_ITEM, lookups=(*DIM_ITEM.lookups, Lookup("city", on=("city_code",)))), contract) == (
        f"'dim_item' joins 'city' by 'city_code', which is {on.family}, but its key is integer; {ALIKE}"
    )


@pytest.mark.parametrize(
    ("on", "key", "joins"),
    [
        (INTEGER, BIGINT, True),
        (BIGINT, INTEGER, True),
        (varchar(3), TEXT, True),
        (enum("A"), TEXT, True),
        (UUID, UUID, True),
        (BOOLEAN, BOOLEAN, True),
        (numeric(10, 2), numeric(5, 2), True),
        (numeric(10, 2), numeric(10, 1), False),
        (INTEGER, numeric(10, 0), True),
        (numeric(10, 0), BIGINT, True),
        (verbatim("numeric"), verbatim("numeric(38,0)"), True),
        (verbatim("numeric"), numeric(10, 0), False),
        (DATE, DATE, True),
        (TEXT, INTEGER, False),
        (numeric(10, 2), INTEGER, False),
        (INTEGER, TEXT, False),
        (UUID, TEXT, False),
        (verbatim("citext"), TEXT, False),
        (DATE, TIMESTAMP, False),
        (TIMESTAMPTZ, TIMESTAMPTZ, False),
    ],
)
def test_types_may_be_joined_if_postgresql_and_pandas_join_the_same_rows(
    on: ColumnType, key: ColumnType, *, joins: bool
) -> None:
    assert join_alike(on, key) is joins
