"""The views of the star, derived from the contract. Pure SQL text.

A view reads tables, never another view: so any of them can be dropped and created again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from contracts.contract import Contract
from contracts.tables import Fact
from contracts.warehouse import DELETED_AT, RUN, current_name
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
    for fact in contract.facts:
        yield _current(contract, fact)


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
    reads = {fact.name: {*fact.identity, RUN, DELETED_AT}}
    shown, joins = "", ""
    for place, (name, column, dimension) in enumerate(contract.shown_surrogates(fact)):
        surrogate, alias = str(dimension.surrogate), f"d{place}"
        reads.setdefault(dimension.name, set()).update((surrogate, dimension.key[0]))
        reads[fact.name].add(column.name)
        shown += f", {quoted(alias, surrogate)} AS {quoted(name)}"
        same = f"{quoted(alias, dimension.key[0])} = {quoted('newest', column.name)}"
        joins += f" LEFT JOIN {relation(contract, dimension)} AS {alias} ON {same}"
    select = f"SELECT newest.*{shown} FROM ({newest}) AS newest{joins} WHERE newest.{DELETED_AT} IS NULL"
    return StarView(current_name(fact.name), select, fact.name, {table: frozenset(names) for table, names in reads.items()})
