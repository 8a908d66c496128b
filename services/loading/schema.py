"""The warehouse's tables, derived from the contract. Pure SQL text; every statement may be repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files

from contracts.tables import NAME_BYTES_MAXIMUM, Column, Contract, TableKind, WarehouseTable
from shared.sql import quoted

QUERIES = {file.name: file.read_text() for file in (files("services.loading") / "queries").iterdir()}
TECHNICAL_COLUMNS = {
    "_run": "bigint NOT NULL DEFAULT 0",  # the run whose snapshot the row shows; 0: an inferred member
    "_batch_id": "uuid",
    "_loaded_at": "timestamptz NOT NULL DEFAULT clock_timestamp()",
    "_deleted_at": "timestamptz",
}


def schema_statements(contract: Contract) -> Iterator[str]:
    """What creates the star, or extends it by the columns and tables that it lacks. Foreign keys come after the first load."""
    yield f"CREATE SCHEMA IF NOT EXISTS {quoted(contract.warehouse_schema)}"
    for table in contract.warehouse_tables:
        yield _create_table(contract, table)
        # A later column starts as NULL: the changed contract makes the next run read everything again.
        for column in table.columns:
            yield f"ALTER TABLE {relation(contract, table)} ADD COLUMN IF NOT EXISTS {quoted(column.name)} {column.type.sql}"
        if table.kind is TableKind.FACT:
            yield create_current_view(contract, table)


def foreign_keys(contract: Contract) -> Iterator[tuple[str, str]]:
    """Of each reference of a fact: the constraint's name, and the statement that adds it.

    Added to filled tables, all rows are checked as one set, a join; checked row by row they cost five times the rest of a load.
    """
    for table in contract.warehouse_tables:
        for column in table.columns:
            if column.references is None:
                continue
            dimension = contract.warehouse_table(column.references)
            name = _constraint_name(table, column)
            referred = f"{relation(contract, dimension)} ({quoted(dimension.key[0])})"
            key = f"FOREIGN KEY ({quoted(column.name)}) REFERENCES {referred}"
            yield name, f"ALTER TABLE {relation(contract, table)} ADD CONSTRAINT {quoted(name)} {key}"


def _constraint_name(table: WarehouseTable, column: Column) -> str:
    """As PostgreSQL would call it; where it would cut the name, a hash keeps names apart."""
    name = f"{table.name}_{column.name}_fkey"
    if len(name.encode()) <= NAME_BYTES_MAXIMUM:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: NAME_BYTES_MAXIMUM - 14].decode(errors='ignore')}_{digest}_fkey"


def _create_table(contract: Contract, table: WarehouseTable) -> str:
    parts = [_definition(column) for column in table.columns]
    parts += [f"{quoted(name)} {definition}" for name, definition in TECHNICAL_COLUMNS.items()]
    identity = ", ".join(quoted(name) for name in table.identity)
    if table.surrogate is None:
        parts.append(f"PRIMARY KEY ({identity})")
    else:
        parts.insert(0, f"{quoted(table.surrogate)} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
        parts.append(f"UNIQUE ({identity})")
    return f"CREATE TABLE IF NOT EXISTS {relation(contract, table)} ({', '.join(parts)})"


def _definition(column: Column) -> str:
    return f"{quoted(column.name)} {column.type.sql}{'' if column.nullable else ' NOT NULL'}"


def create_current_view(contract: Contract, table: WarehouseTable) -> str:
    """The newest version of each business key: that of the highest run, not of the highest last_updated.

    A long transaction sets last_updated to its own start, and commits after others that started later.
    """
    key = ", ".join(quoted(name) for name in table.key)
    newest_first = ", ".join(f"{quoted(name)} DESC" for name in ("_run", *table.version))
    newest = f"SELECT DISTINCT ON ({key}) * FROM {relation(contract, table)} ORDER BY {key}, {newest_first}"
    view = current_view(contract, table)
    return f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM ({newest}) AS newest WHERE _deleted_at IS NULL"


def current_view(contract: Contract, table: WarehouseTable) -> str:
    """The name of a fact's view, qualified and quoted."""
    return quoted(contract.warehouse_schema, f"{table.name}_current")


def relation(contract: Contract, table: WarehouseTable) -> str:
    """The table, qualified and quoted."""
    return quoted(contract.warehouse_schema, table.name)
