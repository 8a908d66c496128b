from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.column_types import DATE, TEXT
from contracts.contract import Contract
from contracts.tables import ContractError, Join, SourceColumn
from tests.fixtures.small_contract import DIM_DAY, DIM_MAKER, FACT_SALE, MAKER, SHELF, SHOP
from tests.fixtures.totesys import CONTRACT as TOTESYS


@pytest.mark.parametrize("contract", [SHOP, TOTESYS])
def test_any_change_of_a_contract_changes_its_fingerprint(contract: Contract) -> None:
    others = {
        replace(contract, name="other").fingerprint,
        replace(contract, warehouse_schema="star").fingerprint,
        replace(contract, warehouse_tables=contract.warehouse_tables[:-1]).fingerprint,
        replace(contract, source_tables=(*contract.source_tables, replace(MAKER, name="builder"))).fingerprint,
    }
    assert len({contract.fingerprint, *others}) == 5
    assert replace(contract).fingerprint == contract.fingerprint


def test_a_missing_table_or_column_is_named() -> None:
    with pytest.raises(ContractError, match="contract 'shop' has no source table 'x'"):
        SHOP.source_table("x")
    with pytest.raises(ContractError, match="contract 'shop' has no warehouse table 'x'"):
        SHOP.warehouse_table("x")
    with pytest.raises(ContractError, match="source table 'maker' has no column 'x'"):
        MAKER.column("x")
    with pytest.raises(ContractError, match="warehouse table 'dim_maker' has no column 'x'"):
        DIM_MAKER.column("x")


def test_the_tables_lookups_and_names_derived_from_a_source_table() -> None:
    assert [table.name for table in SHOP.remodelled_from("item")] == ["dim_item", "fact_sale"]
    assert SHOP.paths_of("item") == ((Join("item", ("maker_id",), "maker"),),)
    assert SHOP.paths_of("maker") == ()
    assert SHOP.calendar is DIM_DAY
    assert replace(SHOP, warehouse_tables=(DIM_MAKER,)).calendar is None
    assert list(MAKER.extract_types) == ["_defect", "maker_id", "maker_name", "town", "capital"]
    assert FACT_SALE.identity == ("item_id", "sold_date", "sold_time")


def test_a_technical_column_avoids_the_name_of_a_source_column() -> None:
    odd = replace(SHELF, columns=(*SHELF.columns, SourceColumn("_defect", TEXT), SourceColumn("_defect_", TEXT)))
    assert list(odd.extract_types) == ["_defect__", "row", "label", "width", "_defect", "_defect_"]
    by_day = replace(odd, key=("_key",), columns=(SourceColumn("_key", DATE), SourceColumn("_key_", TEXT)))
    assert list(by_day.extract_types) == ["_defect", "_key__", "_key", "_key_"]
