"""The warehouse's tables, derived from the contract. Pure SQL text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from contracts.contract import Contract
from contracts.tables import NAME_BYTES_MAXIMUM, Fact, WarehouseTable
from contracts.warehouse import TECHNICAL_COLUMNS, current_name
from shared.sql import quoted


def create_statements(contract: Contract, tables: Iterable[WarehouseTable]) -> Iterator[str]:
    """The statements that create tables of the star, with their keys and views. Foreign keys come after the first load."""
    yield f"CREATE SCHEMA IF NOT EXISTS {quoted(contract.warehouse_schema)}"
    for table in tables:
        yield _create_table(contract, table)
        if isinstance(table, Fact):
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
            name = foreign_key_name(table.name, column.name)
            referred = f"{relation(contract, dimension)} ({quoted(dimension.key[0])})"
            key = f"FOREIGN KEY ({quoted(column.name)}) REFERENCES {referred}"
            yield name, f"ALTER TABLE {relation(contract, table)} ADD CONSTRAINT {quoted(name)} {key}"


def foreign_key_name(table: str, column: str) -> str:
    """The name of the foreign key of a fact's column."""
    return _constraint_name(table, column, kind="fkey")


def _constraint_name(table: str, *columns: str, kind: str) -> str:
    """As PostgreSQL would call it; where it would cut the name, a hash keeps names apart."""
    name = "_".join((table, *columns, kind))
    if len(name.encode()) <= NAME_BYTES_MAXIMUM:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    ending = f"_{digest}_{kind}"
    return f"{name.encode()[: NAME_BYTES_MAXIMUM - len(ending)].decode(errors='ignore')}{ending}"


@dataclass(frozen=True, slots=True)
class KeyConstraint:
    """A primary key, or a unique constraint, of a warehouse table."""

    name: str
    columns: tuple[str, ...]
    is_primary: bool


def key_constraints(table: WarehouseTable) -> tuple[KeyConstraint, ...]:
    """The keys of a table; the last one tells two rows apart, and merges rely on it."""
    if table.surrogate is None:
        return (KeyConstraint(_constraint_name(table.name, kind="pkey"), table.identity, is_primary=True),)
    return (
        KeyConstraint(_constraint_name(table.name, kind="pkey"), (table.surrogate,), is_primary=True),
        KeyConstraint(_constraint_name(table.name, *table.identity, kind="key"), table.identity, is_primary=False),
    )


def definitions(table: WarehouseTable) -> dict[str, str]:
    """Every column of a table with its type and constraints, in order."""
    identity = {} if table.surrogate is None else {table.surrogate: "bigint GENERATED ALWAYS AS IDENTITY"}
    business = {column.name: column.type.sql + ("" if column.nullable else " NOT NULL") for column in table.columns}
    return {**identity, **business, **TECHNICAL_COLUMNS}


def _create_table(contract: Contract, table: WarehouseTable) -> str:
    parts = [f"{quoted(name)} {definition}" for name, definition in definitions(table).items()]
    for key in key_constraints(table):
        kind = "PRIMARY KEY" if key.is_primary else "UNIQUE"
        parts.append(f"CONSTRAINT {quoted(key.name)} {kind} ({', '.join(map(quoted, key.columns))})")
    return f"CREATE TABLE {relation(contract, table)} ({', '.join(parts)})"


def create_current_view(contract: Contract, table: Fact, options: Sequence[str] = ()) -> str:
    """The statement that creates or replaces the view of the newest version of each business key, without deleted ones."""
    given = f" WITH ({', '.join(options)})" if options else ""
    return f"CREATE OR REPLACE VIEW {current_view(contract, table)}{given} AS {select_current(contract, table)}"


def select_current(contract: Contract, table: Fact) -> str:
    """The newest version of each business key: that of the highest run, not of the highest last_updated.

    A long transaction sets last_updated to its own start, and commits after others that started later.
    """
    key = ", ".join(quoted(name) for name in table.key)
    newest_first = ", ".join(f"{quoted(name)} DESC" for name in ("_run", *table.version))
    newest = f"SELECT DISTINCT ON ({key}) * FROM {relation(contract, table)} ORDER BY {key}, {newest_first}"
    return f"SELECT * FROM ({newest}) AS newest WHERE _deleted_at IS NULL"


def current_view(contract: Contract, table: WarehouseTable) -> str:
    """The name of a fact's view, qualified and quoted."""
    return quoted(contract.warehouse_schema, current_name(table.name))


def relation(contract: Contract, table: WarehouseTable) -> str:
    """The table, qualified and quoted."""
    return quoted(contract.warehouse_schema, table.name)
