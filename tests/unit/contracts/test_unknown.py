"""Which keys a dimension may have for references that are NULL, and what becomes of the columns that hold them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.tables import ContractError
from tests.fixtures.small_contract import DIM_MAKER, DIM_SHELF, SHOP, with_table
from tests.unit.contracts.documents import contract

STAR = """
  dim_customer:
    dimension: customer
    unknown: -1
    columns: {customer_id: , full_name: }
  fact_sale:
    fact: sale
    columns: {sale_id: , buyer: {COLUMN, references: dim_customer}}
"""


@pytest.mark.parametrize(
    ("column", "nullable"),
    [
        ("from: customer", False),
        ('sql: "NULLIF(customer, 2)", type: integer', False),
        ('sql: "NULLIF(customer, 2)", type: integer, nullable: true', True),
    ],
)
def test_a_column_that_holds_an_unknown_key_is_not_nullable_unless_it_says_so(column: str, *, nullable: bool) -> None:
    found = contract(STAR.replace("COLUMN", column))
    (fact,) = found.facts
    assert fact.column("buyer").nullable is nullable
    assert found.unknown_of(fact.column("buyer")) == "-1"
    assert found.unknown_of(fact.column("sale_id")) is None


@pytest.mark.parametrize("unknown", ["0", "1", '"-7"', "-2147483648"])
def test_a_whole_number_may_be_written_as_a_number_or_a_text(unknown: str) -> None:
    found = contract(STAR.replace("COLUMN", "from: customer").replace("-1", unknown))
    assert found.unknown_of(found.facts[0].column("buyer")) == unknown.strip('"')


@pytest.mark.parametrize("unknown", ["none", "-01", "1.0", "true", "-2147483649", "+1"])
def test_a_key_that_its_columns_cannot_hold_is_refused(unknown: str) -> None:
    with pytest.raises(ContractError) as caught:
        contract(STAR.replace("COLUMN", "from: customer").replace("-1", unknown))
    why = f"can't hold `unknown: {unknown}`, which is not a value of integer as PostgreSQL writes it"
    assert f"'dim_customer.customer_id' {why}" in str(caught.value)
    assert f"'fact_sale.buyer' {why}" in str(caught.value)


def test_only_a_dimension_of_one_column_that_facts_refer_to_may_have_one() -> None:
    with pytest.raises(ContractError, match="'dim_maker' has `unknown`, but no fact refers to it"):
        with_table(SHOP, replace(DIM_MAKER, unknown="-1"))
    with pytest.raises(ContractError, match="'dim_shelf' has `unknown`, but its key is not one column"):
        with_table(SHOP, replace(DIM_SHELF, unknown="-1"))
    with pytest.raises(ContractError, match="for it is numeric: only an integer, a bigint"):
        contract(
            "  d:\n    dimension: line\n    key: amount\n    unknown: 0\n    columns: {amount: }\n"
            "  f:\n    fact: line\n    columns: {sale_id: , position: , amount: {references: d}}\n"
        )
