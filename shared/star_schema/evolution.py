"""Where the star differs from the contract, and the SQL that changes it. Exact or refused, never silent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from contracts.contract import Contract
from contracts.tables import StoredTable
from contracts.warehouse import RUN, WHOLE_RUN
from shared.errors import DependencyDownError
from shared.sql import literal, quoted
from shared.star_schema.schema import KeyConstraint, create_statements, definitions, key_constraints, relation
from shared.star_schema.star import FoundForeignKey, FoundStar, FoundView
from shared.star_schema.views import StarView, create_view, views
from shared.star_schema.widening import is_widening, renames, retyped, widenings

SCHEMA_DEPENDENCY = "warehouse schema"  # what the consumer waits for, besides the warehouse itself


class SchemaNotReadyError(DependencyDownError):
    """The star does not fit the contract, so that no batch can be loaded.

    Recovery: as for a database that is down. The loader keeps its messages and continues once the obstacle is gone.
    """

    def __init__(self, text: str) -> None:
        super().__init__(SCHEMA_DEPENDENCY, text)


@dataclass(frozen=True, slots=True)
class Change:
    """Statements of one transaction; `subject` is what they change."""

    subject: str
    statements: tuple[str, ...]


def changes(contract: Contract, star: FoundStar) -> list[Change]:
    """The changes that make the star follow the contract; none where nothing differs.

    Carry out only the first: the ones after it may depend on its result.
    Raises: SchemaNotReadyError if one might lose a value, or if objects of others are in the way.
    """
    if refused := obstacles(contract, star):
        raise SchemaNotReadyError("; ".join(refused))
    missing = [table for table in contract.stored_tables if not star.columns[table.name]]
    found = list(_column_changes(contract, star))
    found += (change for table in contract.stored_tables for change in key_changes(contract, table, star))
    for key in outdated_foreign_keys(contract, star):
        statement = f"ALTER TABLE {relation(contract, contract.warehouse_table(key.table))} DROP CONSTRAINT {quoted(key.name)}"
        found.insert(0, Change(f"foreign key '{key.name}' of table '{key.table}'", (statement,)))
    if missing:
        names = {table.name for table in missing}
        new_views = [create_view(contract, view) for view in views(contract) if names.issuperset(view.reads)]
        subject = f"the new tables {', '.join(table.name for table in missing)}"
        found.insert(0, Change(subject, (*create_statements(contract, missing), *new_views)))
    return [*found, *(change for view in views(contract) if (change := _view_change(contract, view, star)) is not None)]


def obstacles(contract: Contract, star: FoundStar) -> list[str]:
    """Why the star can't follow the contract, a sentence each: a type that may not hold every value, objects of others."""
    dependants, refused = list[str](), list[str]()
    for table in contract.stored_tables:
        refused += [
            f"column '{name}' of the warehouse's '{table.name}' is {actual} and should be {wanted}, which may not hold every "
            f"value; alter the column, or correct contract '{contract.name}' and restart the loader"
            for name, actual, wanted in retyped(table, star)
            if not is_widening(actual, wanted)
        ]
        widened = dict(widenings(table, star))
        for dependant in star.dependants:
            if dependant.relation == table.name and widened and (dependant.column is None or dependant.column in widened):
                dependants.append(f"{dependant.name} on {dependant.relation}.{dependant.column or '*'}")
    dropped = {view.name for view in views(contract) if _is_dropped(contract, view, star)}
    dependants += [f"{one.name} on {one.relation}" for one in star.dependants if one.relation in dropped]
    if dependants:
        refused.insert(
            0,
            f"the warehouse can't be migrated to contract '{contract.name}' while other objects depend on columns that have "
            f"to change: {'; '.join(dict.fromkeys(dependants))}; drop them, and create them again once the loader has "
            "continued by itself",
        )
    return refused


def _column_changes(contract: Contract, star: FoundStar) -> Iterator[Change]:
    """Columns are renamed first, then added, then altered: a view that is created again finds the columns that it reads.

    A view keeps the columns that it reads from changing their types, so views of a widened table are created again.
    """
    tables = [table for table in contract.stored_tables if star.columns[table.name]]
    renamed = [(table, found) for table in tables if (found := renames(table, star))]
    if renamed:
        yield _renaming(contract, star, renamed)
        return
    lacking = [(table, found) for table in tables if (found := added(contract, table, star))]
    for table, found in lacking:
        additions = [f"ADD COLUMN {quoted(name)} {definition}" for name, definition in found.items()]
        yield Change(f"table '{table.name}'", (f"ALTER TABLE {relation(contract, table)} {', '.join(additions)}",))
    for table in () if lacking else tables:
        wider = widenings(table, star)
        widened = [f"ALTER COLUMN {quoted(name)} TYPE {kind}" for name, kind in wider]
        if not (actions := [*widened, *_constraint_actions(contract, table, star)]):
            continue
        statements = [f"ALTER TABLE {relation(contract, table)} {', '.join(actions)}"]  # one scan of the rows
        for view in views(contract):
            if view.name in star.views and view.depends_on(table.name, dict(wider)):
                statements = _recreate(contract, view, star, between=statements)
        yield Change(f"table '{table.name}'", tuple(statements))


def _renaming(contract: Contract, star: FoundStar, renamed: Sequence[tuple[StoredTable, dict[str, str]]]) -> Change:
    """Every column that is renamed, in one change: a view may read several of the tables."""
    statements = [
        f"ALTER TABLE {relation(contract, table)} RENAME COLUMN {quoted(old)} TO {quoted(new)}"
        for table, found in renamed
        for old, new in found.items()
    ]
    for view in views(contract):
        if view.name in star.views and any(view.depends_on(table.name, found.values()) for table, found in renamed):
            shown = {column.name for column in star.columns[view.table]}  # a column of another table may have such a name
            names = {
                old: new
                for table, found in renamed
                for old, new in found.items()
                if table.name == view.table or old not in shown
            }
            statements = _recreate(contract, view, star, between=statements, renamed=names)
    return Change(f"the names of columns of {', '.join(table.name for table, _ in renamed)}", tuple(statements))


def added(contract: Contract, table: StoredTable, star: FoundStar) -> dict[str, str]:
    """The columns that an existing table lacks, with their definitions.

    An added column starts as NULL: the changed contract makes the next run read everything again.
    """
    names = {column.name for column in star.columns[table.name]}.union(renames(table, star).values())
    types = {**definitions(contract, table), **{name: kind.sql for name, kind in table.star_types.items()}}
    return {name: definition for name, definition in types.items() if name not in names}


def no_longer_required(contract: Contract, table: StoredTable, star: FoundStar) -> list[str]:
    """The columns that are NOT NULL, although the contract has them not, or allows NULL; not one that has a default of ours."""
    kept = {*definitions(contract, table), WHOLE_RUN} - {column.name for column in table.columns if column.nullable}
    kept |= renames(table, star).keys()
    found = star.columns[table.name]
    return [column.name for column in found if column.is_required and not column.is_key and column.name not in kept]


def _constraint_actions(contract: Contract, table: StoredTable, star: FoundStar) -> Iterator[str]:
    """Actions of ALTER TABLE: NOT NULL only where the contract has the column and forbids NULL."""
    for name in no_longer_required(contract, table, star):
        yield f"ALTER COLUMN {quoted(name)} DROP NOT NULL"
    yield from repairs_of_run(table, star)


def repairs_of_run(table: StoredTable, star: FoundStar) -> Iterator[str]:
    """Actions of ALTER TABLE that keep a row without a run from being inserted: an earlier version allowed it."""
    for column in star.columns[table.name]:
        if column.name == RUN and column.has_default:
            yield f"ALTER COLUMN {RUN} DROP DEFAULT"
        if column.name == RUN and not column.is_required:
            yield f"ALTER COLUMN {RUN} SET NOT NULL"


def key_changes(contract: Contract, table: StoredTable, star: FoundStar) -> Iterator[Change]:
    """The missing keys: first an index, which blocks no reader, then its constraint, which blocks them briefly."""
    names = {column.name for column in star.columns[table.name]}
    indexes = star.indexes[table.name]
    for key, own in missing_keys(table, star):
        if not names.issuperset(key.columns):
            continue  # the table or a column is yet to be created
        if not own:
            columns = ", ".join(map(quoted, key.columns))
            is_taken = any(index.name == key.name for index in indexes)  # by an index that ON CONFLICT can't use
            name = quoted(f"starlift_{key.name}"[:60] if is_taken else key.name)
            statement = f"CREATE UNIQUE INDEX {name} ON {relation(contract, table)} ({columns})"
            yield Change(f"key '{key.name}' ({', '.join(key.columns)}) of table '{table.name}'", (statement,))
        else:
            kind = "PRIMARY KEY" if key.is_primary else "UNIQUE"
            constraint = f"ADD CONSTRAINT {quoted(key.name)} {kind} USING INDEX {quoted(key.name)}"
            statement = f"ALTER TABLE {relation(contract, table)} {constraint}"
            yield Change(f"key '{key.name}' of table '{table.name}'", (statement,))


def missing_keys(table: StoredTable, star: FoundStar) -> Iterator[tuple[KeyConstraint, bool]]:
    """The keys that the table lacks, each with whether there is an index of its name that can become its constraint."""
    if star.is_bulk_loading:
        return
    indexes = star.indexes[table.name]
    has_primary = any(index.is_primary for index in indexes)
    for key in key_constraints(table):
        own = [index for index in indexes if index.is_arbiter and index.columns == frozenset(key.columns)]
        if not own and not (key.is_primary and key.columns == (table.surrogate,) and has_primary):
            yield key, False
        elif (
            not any(index.is_constraint for index in own)
            and not (key.is_primary and has_primary)
            and any(index.name == key.name for index in own)
        ):
            yield key, True


def outdated_foreign_keys(contract: Contract, star: FoundStar) -> list[FoundForeignKey]:
    """The foreign keys that Starlift added for references that the contract has no more: they would refuse new rows."""
    wanted = {(fact.name, column.name): column.references for fact in contract.facts for column in fact.columns}
    return [key for key in star.foreign_keys if wanted.get((key.table, key.column)) != key.references]


def _view_change(contract: Contract, view: StarView, star: FoundStar) -> Change | None:
    found, wanted = star.views.get(view.name), star.wanted_views.get(view.name)
    if found is None:
        statements = [create_view(contract, view)]
    elif wanted is None or found.definition == wanted.definition:
        return None
    elif _has_to_be_dropped(found, wanted):
        statements = _recreate(contract, view, star)
    else:
        statements = [create_view(contract, view, found.options)]
    return Change(f"view '{view.name}'", tuple(statements))


def _is_dropped(contract: Contract, view: StarView, star: FoundStar) -> bool:
    """Whether a view is dropped before it is created again: because of its columns, or of those of a table that it reads."""
    found = star.views.get(view.name)
    return found is not None and (
        _has_to_be_dropped(found, star.wanted_views.get(view.name))
        or any(
            view.depends_on(table.name, (*dict(widenings(table, star)), *renames(table, star).values()))
            for table in contract.stored_tables
        )
    )


def _has_to_be_dropped(view: FoundView, wanted: FoundView | None) -> bool:
    """Whether CREATE OR REPLACE can't turn `view` into the wanted one: it can only add columns at the end."""
    if wanted is None or view.definition == wanted.definition:
        return False
    return wanted.columns[: len(view.columns)] != view.columns


def _recreate(
    contract: Contract,
    view: StarView,
    star: FoundStar,
    between: Sequence[str] = (),
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Drop a view and create it again after the statements `between`, with its owner, grants, options and comments.

    Grants made by others become the owner's. Those of a renamed column are those of its new name.
    """
    found, name = star.views[view.name], quoted(contract.warehouse_schema, view.name)
    columns = {column: renamed.get(column, column) for column, _ in star.wanted_views.get(view.name, found).columns}
    return [
        f"DROP VIEW {name}",
        *between,
        create_view(contract, view, found.options),
        *_attachments(found, name, columns),
        *([] if found.is_own else [f"ALTER VIEW {name} OWNER TO {quoted(found.owner)}"]),
    ]


def _attachments(view: FoundView, name: str, columns: Mapping[str, str]) -> Iterator[str]:
    """The grants, after those that ALTER DEFAULT PRIVILEGES gives a new view are revoked, and the comments.

    `columns` are those that stay, with their names.
    """
    for role in view.granted_by_default:
        yield f"REVOKE ALL ON {name} FROM {_role(role)}"
    for grant in view.grants:
        if grant.column is None or grant.column in columns:
            column = "" if grant.column is None else f" ({quoted(columns[grant.column])})"
            option = " WITH GRANT OPTION" if grant.may_grant else ""
            yield f"GRANT {grant.privilege}{column} ON {name} TO {_role(grant.role)}{option}"
    if view.comment is not None:
        yield f"COMMENT ON VIEW {name} IS {literal(view.comment)}"
    for column, comment in view.column_comments.items():
        if column in columns:
            yield f"COMMENT ON COLUMN {name}.{quoted(columns[column])} IS {literal(comment)}"


def _role(name: str | None) -> str:
    return "PUBLIC" if name is None else quoted(name)
