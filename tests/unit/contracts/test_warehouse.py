"""The tables of the schema `starlift` are named in contracts/warehouse.py and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from contracts.warehouse import (
    COMPARISON_LOCK,
    CREATE_OWN_TABLES,
    OWN_TABLES,
    STAR_LOCK,
    TECHNICAL_COLUMNS,
    current_name,
    own_lock,
    own_statement,
)

ROOT = Path(__file__).resolve().parents[3]
OWNER = ROOT / "contracts" / "warehouse.py"
NAMED = re.compile(r"starlift\.(?:ledger|contract|tombstone|comparison)\b")


def test_no_other_module_or_statement_names_a_table_of_the_starlift_schema() -> None:
    files = (file for folder in ("contracts", "shared", "services", "infra", "tools") for file in (ROOT / folder).rglob("*"))
    named = [file for file in files if file.suffix in {".py", ".sql"} and NAMED.search(file.read_text())]
    assert named == [OWNER]


def test_every_table_is_created() -> None:
    assert {f"{name} (" for name in OWN_TABLES} == set(re.findall(r"EXISTS (starlift\.\w+ \()", CREATE_OWN_TABLES))


def test_technical_column_and_view_names_stay_stable() -> None:
    assert tuple(TECHNICAL_COLUMNS) == ("_run", "_batch_id", "_loaded_at", "_deleted_at")
    assert current_name("fact_sales_order") == "fact_sales_order_current"


def test_a_star_with_a_ledger_of_its_own_has_its_own_tables_and_locks() -> None:
    statement = own_statement('the "second"', CREATE_OWN_TABLES)
    assert statement.count('"the ""second""".') >= len(OWN_TABLES)
    assert "starlift" not in statement.replace("starlift_", "")
    assert own_statement("starlift", CREATE_OWN_TABLES) == CREATE_OWN_TABLES
    locks = [own_lock(schema, lock) for schema in ("starlift", "a", "b") for lock in (STAR_LOCK, COMPARISON_LOCK)]
    assert len(set(locks)) == len(locks)
    assert max(locks) < 2**63
