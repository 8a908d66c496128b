"""Where the star differs from the contract, and the SQL that changes it. Exact or refused, never silent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from contracts.column_types import is_same_type
from contracts.contract import Contract
from contracts.tables import Fact, WarehouseTable
from contracts.warehouse import TECHNICAL_COLUMNS, current_name
from services.loading.schema import (
    Key,
    create_current_view,
    create_statements,
    definitions,
    keys_of,
    relation,
)
from services.loading.star import FoundIndex, FoundView, Star
from services.loading.views import is_extension, recreate
from shared.errors import DependencyDownError
from shared.sql import quoted

SCHEMA = "warehouse schema"  # the dependency that the consumer waits for, beside the warehouse itself

_SPELLINGS = {  # what format_type says, and how a contract says it
    "character varying": "varchar",
    "timestamp without time zone": "timestamp(6)",
    "timestamp(6) without time zone": "timestamp(6)",
    "time without time zone": "time",
    "time(6) without time zone": "time",
}
_TYPE = re.compile(r"(?P<name>integer|bigint|varchar|numeric)(?:\((?P<first>\d+)(?:,(?P<second>\d+))?\))?")


class SchemaNotReadyError(DependencyDownError):
    """The star does not fit the contract, so that no batch can be loaded.

    Recovery: as for a database that is down. The loader keeps its messages and continues once the obstacle is gone.
    """

    def __init__(self, text: str) -> None:
        super().__init__(SCHEMA, text)


@dataclass(frozen=True, slots=True)
class Change:
    """Statements of one transaction; `subject` is what they change."""

    subject: str
    statements: tuple[str, ...]


def changes(contract: Contract, star: Star) -> list[Change]:
    """The changes that make the star follow the contract; none where nothing differs.

    Carry out only the first: the ones after it may depend on its result.
    Raises: SchemaNotReadyError if one might lose a value, or if objects of others are in the way.
    """
    _refuse_dependants(contract, star)
    missing = [table for table in contract.warehouse_tables if not star.columns_of(table.name)]
    found = [
        change
        for table in contract.warehouse_tables
        for change in (*_column_changes(contract, table, star), *_key_changes(contract, table, star))
    ]
    if missing:
        subject = f"the new tables {', '.join(table.name for table in missing)}"
        found.insert(0, Change(subject, tuple(create_statements(contract, missing))))
    return [*found, *(change for table in contract.facts if (change := _view_change(contract, table, star)) is not None)]


def _refuse_dependants(contract: Contract, star: Star) -> None:
    """Raises: SchemaNotReadyError naming every object of others that would be lost or would stop a change."""
    found = []
    for table in contract.warehouse_tables:
        widened = [name for name, _ in _widenings(contract, table, star)]
        view = star.views.get(current_name(table.name))
        is_remade = view is not None and (bool(widened) or _is_replaced(star, view))
        for one in star.dependants:
            if one.relation == table.name and widened and (one.column is None or one.column in widened):
                found.append(f"{one.name} on {one.relation}.{one.column or '*'}")
            elif one.relation == current_name(table.name) and is_remade:
                found.append(f"{one.name} on {one.relation}")
    if found:
        raise SchemaNotReadyError(
            f"the warehouse can't follow contract '{contract.name}' while other objects depend on what has to change: "
            f"{'; '.join(dict.fromkeys(found))}; drop them, and create them again once the loader has gone on by itself"
        )


def _column_changes(contract: Contract, table: WarehouseTable, star: Star) -> Iterator[Change]:
    """One ALTER TABLE for all columns: one lock, and one scan of the rows.

    A view keeps the columns that it shows from changing their types, so the view of a widened fact is created again.
    """
    found = star.columns_of(table.name)
    if not found:
        return
    names = {column.name for column in found}
    # An added column starts as NULL: the changed contract makes the next run read everything again.
    types = {**definitions(table), **{name: kind.sql for name, kind in table.star_types.items()}}
    added = [f"ADD COLUMN {quoted(name)} {definition}" for name, definition in types.items() if name not in names]
    widened = [f"ALTER COLUMN {quoted(name)} TYPE {kind}" for name, kind in _widenings(contract, table, star)]
    actions = [*added, *widened, *_constraint_changes(table, star)]
    if not actions:
        return
    statements = [f"ALTER TABLE {relation(contract, table)} {', '.join(actions)}"]
    view = star.views.get(current_name(table.name))
    if isinstance(table, Fact) and widened and view is not None:
        statements = recreate(contract, table, view, names | set(types), between=statements)
    yield Change(f"table '{table.name}'", tuple(statements))


def _widenings(contract: Contract, table: WarehouseTable, star: Star) -> Iterator[tuple[str, str]]:
    """The columns whose type the contract has widened, with the new type. Raises: SchemaNotReadyError."""
    for column in star.columns_of(table.name):
        wanted = table.star_types.get(column.name)
        actual = _spelled(column.type)
        if wanted is None or is_same_type(actual, wanted.sql) or is_widening(wanted.sql, actual):
            continue  # a wider type, made by a newer build while this one still runs, also holds every value
        if not is_widening(actual, wanted.sql):
            raise SchemaNotReadyError(
                f"column '{column.name}' of the warehouse's '{table.name}' is {actual} and should be {wanted.sql}, which may "
                f"not hold every value; alter the column, or correct contract '{contract.name}' and restart the loader"
            )
        yield column.name, wanted.sql


def _constraint_changes(table: WarehouseTable, star: Star) -> Iterator[str]:
    """Drop NOT NULL where the contract has no such column or allows NULL, and require a `_run` of every row."""
    surrogate = table.surrogate if isinstance(table, Fact) else None
    kept = {*(column.name for column in table.columns if not column.nullable), *TECHNICAL_COLUMNS, surrogate}
    for column in star.columns_of(table.name):
        if column.is_required and not column.is_key and column.name not in kept:
            yield f"ALTER COLUMN {quoted(column.name)} DROP NOT NULL"
        if column.name == "_run" and column.has_default:
            yield "ALTER COLUMN _run DROP DEFAULT"
        if column.name == "_run" and not column.is_required:
            yield "ALTER COLUMN _run SET NOT NULL"


def _key_changes(contract: Contract, table: WarehouseTable, star: Star) -> Iterator[Change]:
    """The missing keys: first an index, which blocks no reader, then its constraint, which blocks them briefly."""
    names = {column.name for column in star.columns_of(table.name)}
    indexes = star.indexes_of(table.name)
    surrogate = table.surrogate if isinstance(table, Fact) else None
    has_primary = any(index.is_primary for index in indexes)
    for key in keys_of(table):
        if not names.issuperset(key.columns):
            continue  # the table or a column is yet to be created
        own = [index for index in indexes if index.is_arbiter and index.columns == frozenset(key.columns)]
        if not own and not (key.columns == (surrogate,) and has_primary):
            columns = ", ".join(map(quoted, key.columns))
            statement = f"CREATE UNIQUE INDEX {quoted(_free_name(key, indexes))} ON {relation(contract, table)} ({columns})"
            yield Change(f"key '{key.name}' ({', '.join(key.columns)}) of table '{table.name}'", (statement,))
        elif not any(index.is_constraint for index in own) and not (key.is_primary and has_primary):
            for index in own:
                if index.name == key.name:
                    kind = "PRIMARY KEY" if key.is_primary else "UNIQUE"
                    constraint = f"ADD CONSTRAINT {quoted(key.name)} {kind} USING INDEX {quoted(key.name)}"
                    statement = f"ALTER TABLE {relation(contract, table)} {constraint}"
                    yield Change(f"key '{key.name}' of table '{table.name}'", (statement,))


def _free_name(key: Key, indexes: list[FoundIndex]) -> str:
    """The key's name, or another one if a useless index has it."""
    return f"starlift_{key.name}"[:60] if any(index.name == key.name for index in indexes) else key.name


def _view_change(contract: Contract, table: Fact, star: Star) -> Change | None:
    view, wanted = star.views.get(current_name(table.name)), star.wanted_views.get(current_name(table.name))
    subject = f"view '{current_name(table.name)}'"
    if view is None:
        return Change(subject, (create_current_view(contract, table),))
    if wanted is None or view.definition == wanted.definition:
        return None
    if is_extension(view, wanted):
        return Change(subject, (create_current_view(contract, table, view.options),))
    return Change(subject, tuple(recreate(contract, table, view, {name for name, _ in wanted.columns})))


def _is_replaced(star: Star, view: FoundView) -> bool:
    """Whether the view is not ours, so that ours can't replace it without a DROP."""
    wanted = star.wanted_views.get(view.name)
    return wanted is not None and view.definition != wanted.definition and not is_extension(view, wanted)


def is_widening(actual: str, wanted: str) -> bool:
    """Whether every value of the type `actual` is the same value in `wanted`; both as a contract spells them."""
    old, new = _TYPE.fullmatch(actual), _TYPE.fullmatch(wanted)
    if old is None or new is None:
        return False
    match (old["name"], new["name"]):
        case ("integer", "bigint"):
            return True
        case ("varchar", "varchar"):
            return new["first"] is None or (old["first"] is not None and int(new["first"]) >= int(old["first"]))
        case ("numeric", "numeric") if new["first"] is None:
            return True
        case ("numeric", "numeric") if old["second"] and new["second"]:
            scale, wanted_scale = int(old["second"]), int(new["second"])
            return wanted_scale >= scale and int(new["first"]) - wanted_scale >= int(old["first"]) - scale
        case _:
            return False


def _spelled(type_name: str) -> str:
    """`format_type`'s name of a type as a contract spells it."""
    return _SPELLINGS.get(type_name, type_name.replace("character varying(", "varchar("))
