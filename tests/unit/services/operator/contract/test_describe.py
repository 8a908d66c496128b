"""A description of a star agrees with its contract, and the tools of analysts can read it."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from contracts.contract import Contract
from services.operator.contract.describe import as_dbt, as_diagram, as_markdown, describe
from services.operator.terminal.describe import app
from shared.star_schema.views import views
from tests.fixtures.applications import CONTRACT as APPLICATIONS
from tests.fixtures.filtered_contract import FILTERED
from tests.fixtures.totesys import CONTRACT

SHIPPED = describe(CONTRACT)
CONTRACTS = (CONTRACT, APPLICATIONS, FILTERED)
_DIAGRAM_LINE = re.compile(r'    (?:\w+ \{|\}|    \w+ \w+(?: PK| FK| PK, FK)?|\w+ \|\|--o\{ \w+ : "[^"]+")')


def test_a_column_is_traced_to_the_source_along_its_joins() -> None:
    (staff,) = (table for table in SHIPPED.tables if table.name == "dim_staff")
    origins = {column.name: column.comes_from for column in staff.columns}
    assert origins["department_name"] == "staff.department_id → department.department_name"
    assert origins["location"] == "staff.department_id → department.location, '(unknown)' if absent"
    assert "refers to dim_staff" in as_markdown(SHIPPED)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda one: one.name)
def test_every_table_is_described_as_it_is_read(contract: Contract) -> None:
    star = describe(contract)
    known = {table.name for table in contract.stored_tables} | {view.name for view in views(contract)}
    assert [table.name for table in star.tables] == [table.name for table in contract.warehouse_tables]
    for described, table in zip(star.tables, contract.warehouse_tables, strict=True):
        assert {described.read, *described.views} <= known
        assert [column.name for column in described.columns] == list(table.star_types)
        assert described.key == tuple(name for name in table.star_types if name in table.key)
    assert all(_DIAGRAM_LINE.fullmatch(line) for line in as_diagram(star).splitlines()[1:])


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda one: one.name)
def test_dbt_tests_each_key_and_each_reference(contract: Contract) -> None:
    (source,) = yaml.safe_load(as_dbt(describe(contract)))["sources"]
    tested = {
        (table["name"], column["name"], json.dumps(test))
        for table in source["tables"]
        for column in table["columns"]
        for test in column.get("data_tests", [])
    }
    for table in contract.warehouse_tables:
        for column in table.columns:
            assert ((table.name, column.name, '"not_null"') in tested) is not column.nullable
            assert ((table.name, column.name, '"unique"') in tested) is (table.key == (column.name,))
            if column.references is not None:
                (field,) = contract.warehouse_table(column.references).key
                to = {"to": f"source('{source['name']}', '{column.references}')", "field": field}
                assert (table.name, column.name, json.dumps({"relationships": to})) in tested


@pytest.mark.parametrize(
    ("form", "beginning"), [("markdown", "# "), ("dbt", "version: 2"), ("erd", "erDiagram"), ("json", "{")]
)
def test_the_command_needs_nothing_but_the_contract(form: str, beginning: str) -> None:
    found = CliRunner().invoke(app, ["--contract", "totesys", "--format", form])
    assert (found.exit_code, found.output[: len(beginning)]) == (0, beginning)
