"""Expressions in a document: of derived columns, and of filters."""

from __future__ import annotations

import pytest

from contracts.column_types import BOOLEAN, TEXT, numeric
from contracts.tables import Fact, Lookup
from contracts.yaml_text import ContractTextError
from tests.unit.contracts.documents import contract, problem


def test_a_derived_column_reads_what_its_expression_names_and_joins_it() -> None:
    star = (
        "  t:\n    fact: line\n    columns:\n      sale_id:\n      position:\n"
        "      total: {sql: amount * position, type: 'numeric(12,2)'}\n"
        "      who: {sql: \"sale_id.customer.full_name || COALESCE(sale_id.customer.country, '')\", type: text}\n"
        "      is_paid: {sql: sale_id.paid_at IS NOT NULL, type: boolean}\n"
    )
    found = contract(star)
    assert {one.name: [column.name for column in one.columns] for one in found.source_tables} == {
        "customer": ["customer_id", "full_name", "country"],
        "sale": ["sale_id", "customer", "paid_at"],
        "line": ["sale_id", "position", "amount"],
    }
    (lines,) = found.warehouse_tables
    assert isinstance(lines, Fact)
    assert lines.lookups == (
        Lookup("sale", ("sale_id",), "sale_id"),
        Lookup("customer", ("customer",), "sale_id.customer", "sale_id"),
    )
    assert [(column.type, column.nullable) for column in lines.columns[2:]] == [
        (numeric(12, 2), False),
        (TEXT, False),
        (BOOLEAN, False),
    ]


def test_a_filter_reads_columns_that_the_star_does_not_hold() -> None:
    star = "  t:\n    dimension: customer\n    where: country = 'GB' AND full_name IS NOT NULL\n    columns: {customer_id: }\n"
    found = contract(star)
    (table,) = found.remodelled_tables
    assert table.where is not None
    assert [column.name for column in found.source_table("customer").columns] == ["customer_id", "full_name", "country"]
    assert found.fingerprint != contract(star.replace("GB", "FR")).fingerprint


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("full_name", "the filter of 't' makes a text, not a boolean"),
        ("city.name = 'x'", "a filter reads columns of 'customer' alone, not 'city.name'"),
        ("nickname IS NULL", "table 'customer' has no column 'nickname'"),
        ("now() > 1", "the filter has the function current_timestamp()"),
        ("full_name LIKE 'a%'", "the filter has `like`, which is not allowed"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_at_its_line(where: str, reason: str) -> None:
    star = f"  t:\n    dimension: customer\n    where: {where}\n    columns: {{customer_id: }}\n"
    with pytest.raises(ContractTextError) as found:
        contract(star)
    ((line, text),) = found.value.problems
    assert reason in text
    assert line in {3, 5}


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("{sql: full_name}", "`sql` needs a `type`, that of what is stored"),
        ("{sql: full_name, type: text, absent: x}", "takes no `absent`: write COALESCE"),
        ("{sql: full_name, from: full_name, type: text}", "it comes from one of"),
        ("{sql: upper(full_name), type: text}", "the expression has upper() or lower()"),
        ("{sql: nickname, type: text}", "table 'customer' has no column 'nickname'"),
        ("{sql: street.name, type: text}", "'street' leads nowhere from table 'customer'"),
        ("{sql: city_number, type: text}", "'t.x' is varchar but its expression makes a whole number"),
        ("{sql: city_number, type: uuid}", "'t.x' is uuid but its expression makes a whole number"),
        ("{sql: extra, type: jsonb}", "'t.x' is computed, but what its expression makes cannot be stored"),
        ("{sql: 'NULL', type: text}", "'t.x' is computed, but what its expression makes cannot be stored"),
        (
            "{sql: 'limit::numeric(9,2)', type: 'numeric(9,2)'}; y: {sql: 'limit::numeric(9,3)', type: 'numeric(9,3)'}",
            "'customer.limit' can't be read both as numeric(9,2) and as numeric(9,3)",
        ),
        ("{sql: limit * 2, type: 'numeric(12,2)'}", "has `*` with a value of another type, a whole number"),
        (
            "{sql: city_number, type: integer}; y: {from: city_number, type: bigint}",
            "can't be read both as integer and as bigint",
        ),
    ],
)
def test_a_derived_column_that_cannot_be_is_refused(column: str, reason: str) -> None:
    assert reason in problem(f"customer_id:; x: {column}")
