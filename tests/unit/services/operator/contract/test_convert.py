from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from contracts.column_types import BOOLEAN, TEXT
from contracts.contract import Contract
from contracts.expressions import Operation, ReadColumn
from contracts.origins import Computed
from contracts.tables import Drift, Lookup
from contracts.yaml_text import read_contract
from services.operator.contract.convert import contract_of_module, converted
from services.operator.errors import UsageError
from tests.fixtures.delivered_contract import DELIVERED
from tests.fixtures.small_contract import DIM_ITEM, DIM_MAKER, SHOP, with_column, with_table
from tests.fixtures.totesys import CONTRACT as TOTESYS
from tests.fixtures.wide_contract import WIDE

CARRYING = replace(SHOP, source_tables=tuple(replace(table, drift=Drift.CARRY) for table in SHOP.source_tables))
WITH_UNKNOWN = with_table(SHOP, replace(DIM_ITEM, unknown="-1"))
MODULE = "from tests.fixtures.small_contract import SHOP\n\nCONTRACT = SHOP\n"


@pytest.mark.parametrize("contract", [SHOP, TOTESYS, WIDE, CARRYING, WITH_UNKNOWN])
def test_the_document_of_a_contract_means_the_same_star(contract: Contract) -> None:
    read = read_contract(converted(contract), "the document")
    assert read.warehouse_tables == contract.warehouse_tables
    assert (read.name, read.source_schema, read.warehouse_schema) == (
        contract.name,
        contract.source_schema,
        contract.warehouse_schema,
    )
    assert [(table.name, table.key, table.drift) for table in read.source_tables] == [
        (table.name, table.key, table.drift) for table in contract.source_tables
    ]
    assert converted(read) == converted(contract) or contract is TOTESYS  # whose unread columns are not in a contract


def test_a_python_file_is_run_for_its_contract(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(MODULE)
    assert contract_of_module(path) == SHOP


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("CONTRAC = 1", "has no CONTRACT"),
        ("1 / 0", "raises ZeroDivisionError while it is run"),
        (None, "raises FileNotFoundError"),
    ],
)
def test_what_has_no_contract_is_wrong_usage(text: str | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        contract_of_module(path)
    with pytest.raises(UsageError, match="is not a Python file"):
        contract_of_module(tmp_path / "shop")


def test_an_expression_which_no_longer_has_its_text_is_left_to_a_person() -> None:
    condition = Operation("is_null", (ReadColumn(None, "town", TEXT),))
    of_filter = with_table(SHOP, replace(DIM_MAKER, where=condition))
    computed = replace(DIM_MAKER.columns[-1], type=BOOLEAN, origin=Computed(condition))
    for contract, sentence in (
        (of_filter, "'dim_maker' has a filter; write its `where` into the document yourself"),
        (with_table(SHOP, with_column(DIM_MAKER, computed)), "is computed; write its `sql` into the document yourself"),
    ):
        with pytest.raises(UsageError, match=sentence):
            converted(contract)


def test_a_join_by_one_column_may_be_spelled_as_it_was_before_keys_of_several_columns(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(
        "from dataclasses import replace\nfrom contracts.tables import Lookup\n"
        "from tests.fixtures.small_contract import DIM_ITEM, SHOP, with_table\n"
        "CONTRACT = with_table(SHOP, replace(DIM_ITEM, lookups=(Lookup('maker', on='maker_id'),)))\n"
    )
    assert converted(contract_of_module(path)) == converted(SHOP)
    assert Lookup("maker", on=("maker_id",)) == DIM_ITEM.lookups[0], "the class is as before"


def test_a_data_set_is_not_turned_into_a_table_of_a_database() -> None:
    with pytest.raises(UsageError, match="'budget' is a data set; write its `file` or `request` into a document yourself"):
        converted(DELIVERED)
