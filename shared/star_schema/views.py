"""The views of the star, derived from the contract. Pure SQL text.

A view reads tables, never another view: so any of them can be dropped and created again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from contracts.column_types import Kind
from contracts.contract import Contract
from contracts.tables import Dimension, Fact, Versions
from contracts.warehouse import (
    DELETED_AT,
    HISTORY_COLUMNS,
    RUN,
    SEEN_AT,
    as_of_column,
    as_of_name,
    current_name,
    history_name,
)
from shared.sql import quoted
from shared.star_schema.schema import relation


@dataclass(frozen=True, slots=True)
class StarView:
    """A view of the star: its name, without the schema, and its query."""

    name: str
    select: str
    table: str  # the table of which it shows every column
    reads: Mapping[str, frozenset[str]]  # by table: the columns that the query names

    def depends_on(self, table: str, columns: Iterable[str]) -> bool:
        """Whether the view shows or reads one of these columns of a table."""
        return any(table == self.table or name in self.reads.get(table, ()) for name in columns)


def views(contract: Contract) -> Iterator[StarView]:
    """Every view of the star."""
    for table in contract.warehouse_tables:
        if isinstance(table, Dimension) and table.versions is not None:
            yield _history(contract, table, table.versions)
        elif isinstance(table, Fact):
            yield _current(contract, table)
            if table.as_of:
                yield _as_of(contract, table)


def create_view(contract: Contract, view: StarView, options: Sequence[str] = ()) -> str:
    """The statement that creates or replaces a view."""
    given = f" WITH ({', '.join(options)})" if options else ""
    return f"CREATE OR REPLACE VIEW {quoted(contract.warehouse_schema, view.name)}{given} AS {view.select}"


def _current(contract: Contract, fact: Fact) -> StarView:
    """The newest version of each business key without deleted ones, and the surrogates of what it refers to.

    The newest is that of the highest run, not of the highest last_updated: a long transaction sets last_updated to its own
    start, and commits after others that started later.
    """
    key = ", ".join(quoted(name) for name in fact.key)
    newest_first = ", ".join(f"{quoted(name)} DESC" for name in (RUN, *fact.version))
    newest = f"SELECT DISTINCT ON ({key}) * FROM {relation(contract, fact)} ORDER BY {key}, {newest_first}"
    reads, shown, joins = {fact.name: {*fact.identity, RUN, DELETED_AT}}, "newest.*", ""
    for place, (name, column, dimension) in enumerate(contract.shown_surrogates(fact)):
        surrogate, alias = str(dimension.surrogate), f"d{place}"
        reads.setdefault(dimension.name, set()).update((surrogate, dimension.key[0]))
        reads[fact.name].add(column.name)
        shown += f", {quoted(alias, surrogate)} AS {quoted(name)}"
        same = f"{quoted(alias, dimension.key[0])} = {quoted('newest', column.name)}"
        joins += f" LEFT JOIN {relation(contract, dimension)} AS {alias} ON {same}"
    select = f"SELECT {shown} FROM ({newest}) AS newest{joins} WHERE newest.{DELETED_AT} IS NULL"
    return StarView(current_name(fact.name), select, fact.name, {table: frozenset(names) for table, names in reads.items()})


def _history(contract: Contract, dimension: Dimension, versions: Versions) -> StarView:
    """Each version of each business key, and from when until when it was valid; a surrogate is that of the key."""
    columns = ", ".join(quoted("h", name) for name in (*versions.star_types, *HISTORY_COLUMNS[:3]))
    shown, joins, reads = f"{columns}, h.valid_to IS NULL AS {HISTORY_COLUMNS[3]}", "", {versions.name: _read(versions)}
    if dimension.surrogate is not None:
        same = " AND ".join(f"{quoted('d', name)} = {quoted('h', name)}" for name in dimension.key)
        shown += f", {quoted('d', dimension.surrogate)}"
        joins = f" LEFT JOIN {relation(contract, dimension)} AS d ON {same}"
        reads[dimension.name] = frozenset((*dimension.key, dimension.surrogate))
    select = f"SELECT {shown} FROM ({_select_versions(contract, versions)}) AS h{joins}"
    return StarView(history_name(dimension.name), select, versions.name, reads)


def _as_of(contract: Contract, fact: Fact) -> StarView:
    """The current rows of a fact, each with the version of every dimension with history that was valid at its time.

    Before the first version that is the first one, and after a delete the last one before it.
    """
    current, moment, shown, joins = _current(contract, fact), _moment(fact), "f.*", ""
    reads = dict(current.reads)
    for place, (column, versions) in enumerate(contract.versions_referred_to(fact)):
        alias = f"v{place}"
        reads[fact.name] |= {*fact.as_of, column.name}
        reads[versions.name] = _read(versions)
        shown += "".join(
            f", {quoted(alias, name)} AS {quoted(as_of_column(column.name, name))}" for name in versions.shown_as_of
        )
        periods = (
            f"SELECT *, CASE WHEN version = 1 THEN '-infinity' ELSE valid_from END AS _from, "
            f"coalesce(lead(valid_from) OVER (PARTITION BY {quoted(versions.key[0])} ORDER BY version), 'infinity') AS _until "
            f"FROM ({_select_versions(contract, versions)}) AS every"
        )
        joins += (
            f" LEFT JOIN ({periods}) AS {alias} ON {quoted(alias, versions.key[0])} = {quoted('f', column.name)} "
            f"AND {moment} >= {alias}._from AND {moment} < {alias}._until"
        )
    return StarView(as_of_name(fact.name), f"SELECT {shown} FROM ({current.select}) AS f{joins}", fact.name, reads)


def _select_versions(contract: Contract, versions: Versions) -> str:
    """The business columns of each version, its number, and from when until when it was valid.

    Runs see states in the order of their numbers. A state that is equal to the one before adds no version, and a delete ends
    one. The source's clock may be set back between two runs: a version then begins when the last one did, never before it.
    """
    same_key = f"(PARTITION BY {', '.join(map(quoted, versions.key))} ORDER BY {RUN})"
    texts = [f"{quoted(name)}::text" for name in versions.star_types if name not in versions.key]
    state = f"ARRAY[{', '.join([*texts, f'({DELETED_AT} IS NOT NULL)::text'])}]"
    seen = (
        f"SELECT *, max({SEEN_AT}) OVER same_key AS valid_from, {state} IS DISTINCT FROM lag({state}) OVER same_key AS _is_new "
        f"FROM {relation(contract, versions)} WINDOW same_key AS {same_key}"
    )
    new = f"SELECT *, lead(valid_from) OVER {same_key} AS valid_to FROM ({seen}) AS seen WHERE _is_new"
    columns = ", ".join(map(quoted, versions.star_types))
    return (
        f"SELECT {columns}, row_number() OVER {same_key} AS version, valid_from, valid_to "
        f"FROM ({new}) AS new WHERE {DELETED_AT} IS NULL"
    )


def _read(versions: Versions) -> frozenset[str]:
    return frozenset((*versions.star_types, RUN, DELETED_AT, SEEN_AT))


def _moment(fact: Fact) -> str:
    """The time of a row of the fact `f`, as a timestamptz. What has no time zone is in UTC."""
    if fact.column(fact.as_of[0]).type.kind is Kind.TIMESTAMPTZ:
        return quoted("f", fact.as_of[0])
    parts = " + ".join(quoted("f", name) for name in fact.as_of)
    return f"(({parts})::timestamp AT TIME ZONE 'UTC')"
