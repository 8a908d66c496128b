from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.column_types import DATE, TEXT
from contracts.contract import Contract
from contracts.tables import ContractError, Join, Lookup, SourceColumn
from tests.fixtures.several_sources import DIM_REGION, FACT_BUDGET, SEVERAL
from tests.fixtures.small_contract import DIM_DAY, DIM_MAKER, FACT_SALE, MAKER, SHELF, SHOP, with_table
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


def test_a_part_has_the_tables_of_its_source_and_refers_to_those_of_others() -> None:
    part = SEVERAL.part("plans")
    assert [table.name for table in part.source_tables] == ["budget"]
    assert [table.name for table in part.warehouse_tables] == ["dim_day", "fact_budget"]
    assert part.warehouse_table("dim_region").name == "dim_region"
    assert [(fact.name, column.name) for fact, column in SEVERAL.part("regions").references_to("dim_region")] == [
        ("fact_budget", "region_id")
    ]
    assert SHOP.part("anything") is SHOP
    with pytest.raises(ContractError, match="has no source 'utter'; its sources are shop, plans, regions"):
        SEVERAL.part("utter")


def test_a_source_keeps_its_fingerprint_when_others_are_added_or_changed() -> None:
    assert SEVERAL.part("shop").fingerprint == SHOP.fingerprint
    assert SEVERAL.fingerprint not in {SHOP.fingerprint, SEVERAL.part("plans").fingerprint}
    renamed = tuple(replace(table, source_name=f"{table.source_name}_2") for table in SEVERAL.source_tables)
    assert replace(SEVERAL, source_tables=renamed).part("plans_2").fingerprint == SEVERAL.part("plans").fingerprint


def test_a_key_that_stands_for_null_in_another_source_s_dimension_changes_the_fingerprint_of_a_fact_s_source() -> None:
    changed = with_table(SEVERAL, replace(DIM_REGION, unknown="-1"))
    assert changed.part("plans").fingerprint != SEVERAL.part("plans").fingerprint
    assert changed.part("shop").fingerprint == SEVERAL.part("shop").fingerprint


def test_a_join_with_a_table_of_another_source_is_refused() -> None:
    joined = replace(FACT_BUDGET, lookups=(Lookup("region", on=("region_id",)),))
    with pytest.raises(ContractError) as refusal:
        with_table(SEVERAL, joined)
    assert str(refusal.value) == (
        "'fact_budget' joins 'budget' of source 'plans' with 'region' of source 'regions', which have no common snapshot; let "
        "a fact refer to a dimension by `references` instead"
    )
