"""What the migration to a contract changes in the warehouse, by the names of the objects. Pure.

Decided by the functions that the migration itself asks (services/loading/migrate.py), and all of it at once: the migration goes
step by step, since what it does next may depend on the result of the step before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, unique

from contracts.contract import Contract
from contracts.tables import Dimension, Fact, StoredTable
from contracts.warehouse import RUN, WHOLE_RUN
from shared.star_schema.evolution import (
    added,
    missing_keys,
    no_longer_required,
    outdated_foreign_keys,
    repairs_of_run,
)
from shared.star_schema.schema import definitions, foreign_key_name
from shared.star_schema.star import FoundStar
from shared.star_schema.views import StarView, views
from shared.star_schema.widening import renames, widenings


@unique
class Action(StrEnum):
    """What becomes of an object of the warehouse."""

    CREATE = "create"
    ADD = "add"  # to a table that exists
    RENAME = "rename"
    WIDEN = "widen"  # to a type that holds every value of the old one
    REPLACE = "replace"  # a view, with its owner, grants and comments
    CHANGE = "change"
    DROP = "drop"  # a constraint, never a value
    KEEP = "keep"  # as it is: the contract has it no more, and nothing writes to it


@dataclass(frozen=True, slots=True)
class Effect:
    """A change of one object; KEEP is none."""

    action: Action
    kind: str  # 'table', 'column', 'key', 'foreign key', …
    name: str  # with its schema
    detail: str = ""


def effects(contract: Contract, star: FoundStar) -> Iterator[Effect]:
    """Every change that the star needs: tables, then views; foreign keys last, since they come after the first load."""
    for table in contract.stored_tables:
        name = f"{contract.warehouse_schema}.{table.name}"
        if star.columns[table.name]:
            yield from _table_effects(contract, table, star, name)
        else:
            has_filter = isinstance(table, Dimension | Fact) and table.where is not None
            some = ", of the rows that its filter accepts" if has_filter else ""
            yield Effect(Action.CREATE, "table", name, f"{len(definitions(contract, table))} columns{some}")
    for view in views(contract):
        if (action := _view_action(contract, view, star)) is not None:
            yield Effect(action, "view", f"{contract.warehouse_schema}.{view.name}")
    yield from _foreign_key_effects(contract, star)


def _foreign_key_effects(contract: Contract, star: FoundStar) -> Iterator[Effect]:
    outdated = outdated_foreign_keys(contract, star)
    for key in outdated:
        place = f"{contract.warehouse_schema}.{key.table}.{key.name}"
        yield Effect(Action.DROP, "foreign key", place, "the contract has no such reference")
    kept = {key.name for key in star.foreign_keys} - {key.name for key in outdated}
    for table in contract.warehouse_tables:
        for column in table.columns:
            if column.references is not None and (name := foreign_key_name(table.name, column.name)) not in kept:
                place = f"{contract.warehouse_schema}.{table.name}.{name}"
                yield Effect(Action.ADD, "foreign key", place, f"to {column.references}, after the first complete run")


def _table_effects(contract: Contract, table: StoredTable, star: FoundStar, name: str) -> Iterator[Effect]:
    new, wider, renamed = added(contract, table, star), widenings(table, star), renames(table, star)
    for old, column in renamed.items():
        yield Effect(Action.RENAME, "column", f"{name}.{old}", f"to {column}")
    for column, definition in new.items():
        yield Effect(Action.ADD, "column", f"{name}.{column}", definition)
    for column, kind in wider:
        yield Effect(Action.WIDEN, "column", f"{name}.{column}", f"to {kind}")
    for column in no_longer_required(contract, table, star):
        yield Effect(Action.DROP, "NOT NULL", f"{name}.{column}")
    if repairs := ", ".join(action.rpartition(f"{RUN} ")[2] for action in repairs_of_run(table, star)):
        yield Effect(Action.CHANGE, "column", f"{name}.{RUN}", repairs)
    for key, _ in missing_keys(table, star):
        yield Effect(Action.ADD, "key", f"{name}.{key.name}", f"({', '.join(key.columns)})")
    known = {*definitions(contract, table), WHOLE_RUN}  # which stays when its data set has no version any more
    for found in star.columns[table.name]:
        if found.name not in known and found.name not in renamed:
            yield Effect(Action.KEEP, "column", f"{name}.{found.name}", _why_kept(table, found.name))


def _why_kept(table: StoredTable, column: str) -> str:
    """What becomes of a column that the contract has no more, and how to say what should."""
    if column in table.retired:
        return "retired: its values stay as they are, new rows have NULL"
    for new, old in table.renamed:
        if old == column:
            return f"not renamed, since '{new}' is there too: its values stay as they are; drop one of the two"
    remedies = f"`retired: [{column}]` if they should, `renamed: {{NEW: {column}}}` if another column has taken its place"
    return f"not in the contract: its values stay as they are; write {remedies}"


def _view_action(contract: Contract, view: StarView, star: FoundStar) -> Action | None:
    found, wanted = star.views.get(view.name), star.wanted_views.get(view.name)
    if found is None:
        return Action.CREATE
    tables = [table for table in contract.stored_tables if star.columns[table.name]]
    changed = any(
        view.depends_on(
            table.name, (*added(contract, table, star), *dict(widenings(table, star)), *renames(table, star).values())
        )
        for table in tables
    )
    return Action.REPLACE if changed or (wanted is not None and wanted.definition != found.definition) else None
