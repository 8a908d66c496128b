"""The warehouse's tables, derived from the contract. Pure SQL text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from contracts.contract import Contract
from contracts.tables import NAME_BYTES_MAXIMUM, Dimension, StoredTable, Versions
from contracts.warehouse import OWN_SCHEMA, RUN, SEEN_AT, TECHNICAL_COLUMNS, WHOLE_RUN, WHOLE_RUN_TYPE
from shared.sql import literal, quoted

_OWNER = "of the star whose ledger is in schema "


def create_statements(contract: Contract, tables: Iterable[StoredTable]) -> Iterator[str]:
    """The statements that create tables of the star, with their keys. Foreign keys come after the first load."""
    yield create_schema(contract.warehouse_schema)
    for table in tables:
        yield _create_table(contract, table)
        if (mark := owner_mark(contract)) is not None:
            yield f"COMMENT ON COLUMN {relation(contract, table)}.{RUN} IS {literal(mark)}"


def create_schema(name: str) -> str:
    """Create a schema that is missing. IF NOT EXISTS alone demands the right to create one, even where there is one."""
    create = f"CREATE SCHEMA IF NOT EXISTS {quoted(name)}"
    return f"DO {literal(f'BEGIN IF to_regnamespace({literal(quoted(name))}) IS NULL THEN {create}; END IF; END')}"


def owner_mark(contract: Contract) -> str | None:
    """The comment on `_run` in the tables of a star whose ledger is not where that of a database's only star is."""
    return None if contract.ledger_schema == OWN_SCHEMA else f"{_OWNER}{contract.ledger_schema}"


def is_of_another_star(mark: str | None, wanted: str | None) -> bool:
    """Whether the comment on `_run` in a table is not the one that its star should have. Comments of others don't count."""
    return (mark if mark is not None and mark.startswith(_OWNER) else None) != wanted


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


def key_constraints(table: StoredTable) -> tuple[KeyConstraint, ...]:
    """The keys of a table; the last one tells two rows apart, and merges rely on it.

    A dimension keeps its primary key when it is given a surrogate.
    """
    primary = _constraint_name(table.name, kind="pkey")
    if table.surrogate is None:
        return (KeyConstraint(primary, table.identity, is_primary=True),)
    if isinstance(table, Dimension):
        unique = _constraint_name(table.name, table.surrogate, kind="key")
        return (
            KeyConstraint(unique, (table.surrogate,), is_primary=False),
            KeyConstraint(primary, table.identity, is_primary=True),
        )
    return (
        KeyConstraint(primary, (table.surrogate,), is_primary=True),
        KeyConstraint(_constraint_name(table.name, *table.identity, kind="key"), table.identity, is_primary=False),
    )


def definitions(contract: Contract, table: StoredTable) -> dict[str, str]:
    """Every column of a table with its type and constraints, in order."""
    identity = {} if table.surrogate is None else {table.surrogate: "bigint GENERATED ALWAYS AS IDENTITY"}
    business = {column.name: column.type.sql + ("" if column.nullable else " NOT NULL") for column in table.columns}
    whole_run = {WHOLE_RUN: WHOLE_RUN_TYPE} if contract.version_of(table) else {}
    seen = {SEEN_AT: "timestamptz NOT NULL"} if isinstance(table, Versions) else {}
    return {**identity, **business, **TECHNICAL_COLUMNS, **whole_run, **seen}


def _create_table(contract: Contract, table: StoredTable) -> str:
    parts = [f"{quoted(name)} {definition}" for name, definition in definitions(contract, table).items()]
    for key in key_constraints(table):
        kind = "PRIMARY KEY" if key.is_primary else "UNIQUE"
        parts.append(f"CONSTRAINT {quoted(key.name)} {kind} ({', '.join(map(quoted, key.columns))})")
    return f"CREATE TABLE {relation(contract, table)} ({', '.join(parts)})"


def relation(contract: Contract, table: StoredTable) -> str:
    """The table, qualified and quoted."""
    return quoted(contract.warehouse_schema, table.name)
