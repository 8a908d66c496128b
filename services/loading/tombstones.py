"""The SQL of deletes. Pure text, derived from the contract; the argument is in docs/decisions/0006-deletes.md.

A key list of run R says which keys the source had in R's snapshot. A row of the star whose highest `_run` is below R and whose
key is not in the list is gone: it gets a tombstone, whoever inserted it. Inferred members, which stand for rows that are not
at the source, are left alone while a fact refers to them. A row with a tombstone above its highest `_run` is dead, and its
newest version has `_deleted_at`; no other row has. The result depends only on the highest runs, not on the order of arrival.

Statements name a row's business key as the ledger does, as a JSON array.
"""

from __future__ import annotations

from contracts.contract import Contract
from contracts.tables import Fact, WarehouseTable
from contracts.warehouse import TOMBSTONE
from services.loading.merge import is_inferred, staging_name
from services.loading.schema import relation
from shared.codecs import codec_of
from shared.sql import literal, quoted


def keys_name(table: WarehouseTable) -> str:
    """The temporary table that a key list of `table` is copied into."""
    return f"keys_of_{table.name}"


def create_keys(table: WarehouseTable) -> str:
    """A temporary table that ends with the transaction."""
    columns = ", ".join(f"{quoted(name)} {table.column(name).type.sql}" for name in table.key)
    return f"CREATE TEMPORARY TABLE {quoted(keys_name(table))} ({columns}) ON COMMIT DROP"


def insert_keys(table: WarehouseTable) -> str:
    """Keys into that table; one parameter per column of the key, an array of its values."""
    kinds = [table.column(name).type for name in table.key]
    arrays = (f"${n}::{kind.sql if kind.is_whole_number else 'text'}[]" for n, kind in enumerate(kinds, start=1))
    values = ", ".join(f"k{n}::{kind.sql}" for n, kind in enumerate(kinds))
    names = ", ".join(f"k{n}" for n in range(len(kinds)))
    return f"INSERT INTO {quoted(keys_name(table))} SELECT {values} FROM unnest({', '.join(arrays)}) AS k ({names})"


def has_older(contract: Contract, table: WarehouseTable) -> str:
    """Whether `table` has a row of a run below $1: without one, as in a first load, there is nothing to compare."""
    return f"SELECT EXISTS (SELECT FROM {relation(contract, table)} WHERE _run < $1::bigint)"


def bury_missing(contract: Contract, table: WarehouseTable) -> str:
    """Insert a tombstone of run $1, found at $2, for each row that no run from $1 on has seen and whose key is not listed.

    A row that has a tombstone and is marked as deleted is skipped. Returns the keys, sorted, so that two loaders lock
    tombstones in the same order.
    """
    key = ", ".join(quoted("t", name) for name in table.key)
    listed = " AND ".join(f"{quoted('k', name)} = {quoted('t', name)}" for name in table.key)
    version = table.version if isinstance(table, Fact) else ()
    order = ", ".join(f"{quoted('t', name)} DESC" for name in ("_run", *version))
    newest = f"(array_agg(t._deleted_at IS NOT NULL ORDER BY {order}))[1]"
    unlisted = (
        f"SELECT jsonb_build_array({key}) AS key, max(t._run) AS run, {newest} AS is_marked "
        f"FROM {_without_inferred(contract, table)} AS t "
        f"WHERE NOT EXISTS (SELECT FROM {quoted(keys_name(table))} AS k WHERE {listed}) "
        f"GROUP BY {key} HAVING max(t._run) < $1::bigint"
    )
    return (
        f"INSERT INTO {TOMBSTONE} (table_name, key, run, found_at) "
        f"SELECT {literal(table.name)}, u.key, $1, $2::timestamptz FROM ({unlisted}) AS u "
        f"WHERE NOT u.is_marked OR NOT EXISTS "
        f"(SELECT FROM {TOMBSTONE} AS d WHERE {_of(table, 'd')} AND d.key = u.key AND d.run > u.run) "
        f"ORDER BY u.key "
        f"ON CONFLICT (table_name, key) DO UPDATE SET run = excluded.run, found_at = excluded.found_at RETURNING key"
    )


def _without_inferred(contract: Contract, table: WarehouseTable) -> str:
    """The rows of `table` except inferred members that facts refer to."""
    name = relation(contract, table)
    references = [
        f"SELECT {quoted(column.name)} FROM {relation(contract, fact)}"
        for fact in contract.warehouse_tables
        for column in fact.columns
        if column.references == table.name
    ]
    if not references:
        return name
    inferred, key = is_inferred(table), quoted("d", table.key[0])
    referred = f"SELECT FROM ({' UNION ALL '.join(references)}) AS f (key) WHERE f.key = {key}"
    return (
        f"(SELECT * FROM {name} WHERE NOT ({inferred}) "
        f"UNION ALL SELECT * FROM {name} AS d WHERE {inferred} AND NOT EXISTS ({referred}))"
    )


def buried_keys(table: WarehouseTable) -> str:
    """The keys of staged rows that have a tombstone."""
    key = ", ".join(codec_of(table.column(name).type).loaded(quoted("s", name)) for name in table.key)
    staged = f"SELECT jsonb_build_array({key}) FROM {quoted(staging_name(table))} AS s"
    return f"SELECT b.key FROM {TOMBSTONE} AS b WHERE {_of(table, 'b')} AND b.key IN ({staged})"


def mark_dead(contract: Contract, table: WarehouseTable) -> str:
    """`_deleted_at` as it should be for every version of the rows with the keys $1 (jsonb[]), all of which have a tombstone."""
    same = " AND ".join(
        f"{quoted('t', name)} = (b.key ->> {position})::{table.column(name).type.sql}"
        for position, name in enumerate(table.key)
    )
    is_dead = "t._run < b.run"
    if isinstance(table, Fact):
        key = " AND ".join(f"{quoted('n', name)} = {quoted('t', name)}" for name in table.key)
        order = ", ".join(("{0}._run", *(f"{{0}}.{quoted(name)}" for name in table.version)))
        newer = f"{key} AND ({order.format('n')}) > ({order.format('t')})"
        is_dead += f" AND NOT EXISTS (SELECT FROM {relation(contract, table)} AS n WHERE {newer})"
    moment = f"CASE WHEN {is_dead} THEN b.found_at END"
    return (
        f"UPDATE {relation(contract, table)} AS t SET _deleted_at = {moment} FROM {TOMBSTONE} AS b "
        f"WHERE {_of(table, 'b')} AND b.key = ANY ($1::jsonb[]) AND {same} AND t._deleted_at IS DISTINCT FROM ({moment})"
    )


def _of(table: WarehouseTable, alias: str) -> str:
    return f"{alias}.table_name = {literal(table.name)}"
