"""What keeps a source from being read as its contract says: every problem, a sentence each. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from contracts.contract import Contract
from contracts.tables import SourceTable
from shared.codecs import codec_of
from shared.equality import keys_compared_with
from shared.source_types import SourceType, comparison_problem

WITHOUT_VERSIONS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table or view of the source, as queries/catalog.sql describes it."""

    kind: str  # pg_class.relkind
    fingerprint: str
    bytes: int  # with what is stored out of line, and with partitions
    estimated_rows: int  # 0 where the source has not analysed it
    types: Mapping[str, SourceType]  # of every column
    unreadable: frozenset[str]  # the columns that the role may not read
    unique_keys: frozenset[str]  # the columns of valid indexes on NOT NULL columns, sorted and joined by commas
    foreign_tables: tuple[str, ...]  # below it
    heirs: tuple[str, ...]
    has_row_versions: bool  # it is a table, and the role may read xmin


def table_problems(contract: Contract, found: Mapping[str, FoundTable], schemas: Container[str]) -> Iterator[str]:
    """Every table, column, key and privilege that the source lacks in the `schemas` that it has; then incomparable keys."""
    remedy = f"required by contract '{contract.name}'; restore it or change the contract"
    for table in contract.source_tables:
        schema, name = contract.relation_of(table)
        if (one := found.get(table.name)) is None:
            if schema in schemas:
                yield f"schema '{schema}' lacks table '{name}' {remedy}"
        elif (kind := WITHOUT_VERSIONS.get(one.kind)) is not None and not table.full:
            yield (
                f"'{table.name}' is {kind}: no transaction id of its rows shows what changed; write `full: true` beside "
                "its `key` in the contract's part `source`, and every run reads all of it, or read the tables below it"
            )
        else:
            yield from _unreadable(table, one)
            yield from () if table.full else _below(table, one)
            yield from _columns(table, one, remedy)
    yield from _incomparable(contract, found)


def _unreadable(table: SourceTable, found: FoundTable) -> Iterator[str]:
    named = [column.name for column in table.columns if column.name in found.types]
    if named and found.unreadable.issuperset(named):
        remedy = "grant SELECT on it to the role that Starlift uses (`starlift grants source`)"
        yield f"no privilege to read table '{table.name}'; {remedy}"
        return
    for name in named:
        if name in found.unreadable:
            yield (
                f"no privilege to read column '{table.name}.{name}'; grant SELECT ({name}) ON {table.name} to the role that "
                "Starlift uses (`starlift grants source`), or leave the column out of the contract"
            )


def _below(table: SourceTable, found: FoundTable) -> Iterator[str]:
    """The tables whose rows are rows of `table` and can't be read as such."""
    if found.foreign_tables:
        yield (
            f"table '{table.name}' has foreign tables below it ({', '.join(found.foreign_tables)}), whose rows have no "
            "transaction ids: changes there would never be read; detach them or make them tables of the source"
        )
    elif found.heirs:
        yield (
            f"table '{table.name}' has tables that inherit from it ({', '.join(found.heirs)}), which its key does not "
            f"cover; detach them (ALTER TABLE … NO INHERIT {table.name}) and read them as tables of their own"
        )


def _columns(table: SourceTable, found: FoundTable, remedy: str) -> Iterator[str]:
    """Missing columns, other types, a key that is not unique."""
    for column in table.stored_columns:
        if (kind := found.types.get(column.name)) is None:
            yield f"table '{table.name}' lacks column '{column.name}' {remedy}"
        elif not codec_of(column.type).accepts(kind):
            wanted, way = column.type.sql if column.type.precision else column.type.family, remedy
            if column.type.precision and kind.unbounded == "numeric":
                way = remedy.replace("change the contract", f"change the contract to verbatim('{kind.name}')")
            yield f"column '{table.name}.{column.name}' is {kind}, not {wanted} as {way}"
    key = ",".join(sorted(table.key))
    if table.full or found.foreign_tables:
        return  # nothing guarantees the key: it is checked by each run, or refused
    if found.types.keys() >= set(table.key) and key not in found.unique_keys:
        yield (
            f"table '{table.name}' has no unique index on its key ({key}), NOT NULL, {remedy}: rows could not be told apart. "
            "With `full: true` every run reads all of it and checks the key"
        )


def _incomparable(contract: Contract, found: Mapping[str, FoundTable]) -> Iterator[str]:
    """Texts in keys that may differ although PostgreSQL compares them as equal."""
    for table in contract.source_tables:
        for column in table.columns:
            kind = _type(found, table.name, column.name)
            compared = keys_compared_with(contract, table.name, column.name) if column.type.is_text else ()
            if kind is None or not column.type.is_text or not (compared or column.name in table.key):
                continue
            others = [(_key_name(contract.source_table(other), key), _type(found, other, key)) for other, key in compared]
            keys = {name: other for name, other in others if other is not None}
            problem = comparison_problem(table, column.name, kind, keys)
            if problem is not None:
                yield f"column '{table.name}.{column.name}' {problem}"


def _type(found: Mapping[str, FoundTable], table: str, column: str) -> SourceType | None:
    return found[table].types.get(column) if table in found else None


def _key_name(table: SourceTable, column: str) -> str:
    return table.name if len(table.key) == 1 else f"{table.name}.{column}"
