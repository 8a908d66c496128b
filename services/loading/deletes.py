"""What a load does about rows that are gone at the source (docs/decisions/0006-deletes.md).

A key list of run R says which keys the source had in R's snapshot. A row of the star whose highest `_run` is below R and whose
key is not in the list is gone: it gets a tombstone, whoever inserted it. Inferred members, which stand for rows that are not
at the source, are left alone while a fact refers to them. A row with a tombstone above its highest `_run` is dead, and its
newest version has `_deleted_at`; no other row has. The result depends only on the highest runs, not on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg
import structlog

from contracts.contract import Contract
from contracts.tables import Fact, WarehouseTable
from contracts.warehouse import COMPARISON, TOMBSTONE
from services.loading.merge import is_inferred, staging_name
from services.loading.schema import relation
from services.loading.warehouse import Batch
from shared.codecs import codec_of
from shared.ledger import Comparison, last_comparisons
from shared.object_store import ObjectMissingError
from shared.sql import literal, quoted

KEEP_COMPARISON = f"""
INSERT INTO {COMPARISON} (table_name, run, found_at, keys)
VALUES ($1, $2, $3, $4)
ON CONFLICT (table_name) DO UPDATE SET run = excluded.run, found_at = excluded.found_at, keys = excluded.keys
"""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Deletes:
    """The deletes of one load, in its transaction and after it has merged the rows of its batch."""

    connection: asyncpg.Connection
    contract: Contract
    batch: Batch

    async def later_comparisons(self) -> dict[str, Comparison]:
        """The comparisons of later runs, by table, that this batch comes too late for."""
        tables = {*self.batch.rows, *(keys.table for keys in self.batch.keys.lists)}
        return await last_comparisons(self.connection, tables, above=self.batch.event.data.run)

    async def apply(self, later: Mapping[str, Comparison]) -> int:
        """Compare the batch's keys, compare the staged tables with `later` once more, and mark what is dead.

        Both need the exclusive lock. Without a comparison a load can only revive rows, which is the same in any order: every
        tombstone is a comparison's, and this batch comes too late for none. Returns how many rows were found gone.
        """
        data = self.batch.event.data
        own = {keys.table: Comparison(keys, data.run, data.snapshot.taken_at) for keys in self.batch.keys.lists}
        gone = 0
        for table in self.contract.warehouse_tables:
            is_staged = table.name in self.batch.rows
            if table.name in later:  # the later comparison knows all that this batch's own list would say
                gone += await self._compare_again(table, later[table.name]) if is_staged else 0
            elif table.name in own:
                comparison = own[table.name]
                gone += await self._compare(table, comparison)
                record = (table.name, data.run, comparison.found_at, comparison.keys.model_dump_json())
                await self.connection.execute(KEEP_COMPARISON, *record)
            if is_staged:
                rows = await self.connection.fetch(select_staged_tombstones(table))
                await self._mark(table, [row["key"] for row in rows])
        return gone

    async def _compare(self, table: WarehouseTable, comparison: Comparison) -> int:
        """Insert a tombstone for each row that the list lacks, and return how many. Raises: ObjectMissingError."""
        # Without a row of an earlier run, as in a first load, there is nothing to compare.
        older = f"SELECT EXISTS (SELECT FROM {relation(self.contract, table)} WHERE _run < $1::bigint)"
        if not await self.connection.fetchval(older, comparison.run):
            return 0
        await self.connection.execute(create_key_list(table))
        for part in comparison.keys.objects:
            keys = await self.batch.keys.read(part)
            await self.connection.execute(insert_listed_keys(table), *zip(*keys, strict=True))
        gone = await self.connection.fetch(insert_tombstones(self.contract, table), comparison.run, comparison.found_at)
        await self._mark(table, [row["key"] for row in gone])
        return len(gone)

    async def _compare_again(self, table: WarehouseTable, comparison: Comparison) -> int:
        """As `_compare`; a list that the bucket no longer has is skipped, and a row may live until the next comparison."""
        try:
            return await self._compare(table, comparison)
        except ObjectMissingError as error:
            _log.warning("comparison_not_repeated", run=self.batch.event.data.run, table=table.name, reason=str(error))
            return 0

    async def _mark(self, table: WarehouseTable, keys: list[str]) -> None:
        if keys:
            await self.connection.execute(update_deleted_at(self.contract, table), keys)


# The statements. They name a row's business key as the tombstone table does, as a JSON array.


def key_list_name(table: WarehouseTable) -> str:
    """The temporary table that a key list of `table` is copied into."""
    return f"keys_of_{table.name}"


def create_key_list(table: WarehouseTable) -> str:
    """A temporary table that ends with the transaction."""
    columns = ", ".join(f"{quoted(name)} {table.column(name).type.sql}" for name in table.key)
    return f"CREATE TEMPORARY TABLE {quoted(key_list_name(table))} ({columns}) ON COMMIT DROP"


def insert_listed_keys(table: WarehouseTable) -> str:
    """Keys into that table; one parameter per column of the key, an array of its values."""
    kinds = [table.column(name).type for name in table.key]
    arrays = (f"${n}::{kind.sql if kind.is_whole_number else 'text'}[]" for n, kind in enumerate(kinds, start=1))
    values = ", ".join(f"k{n}::{kind.sql}" for n, kind in enumerate(kinds))
    names = ", ".join(f"k{n}" for n in range(len(kinds)))
    return f"INSERT INTO {quoted(key_list_name(table))} SELECT {values} FROM unnest({', '.join(arrays)}) AS k ({names})"


def insert_tombstones(contract: Contract, table: WarehouseTable) -> str:
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
        f"FROM {_rows_to_compare(contract, table)} AS t "
        f"WHERE NOT EXISTS (SELECT FROM {quoted(key_list_name(table))} AS k WHERE {listed}) "
        f"GROUP BY {key} HAVING max(t._run) < $1::bigint"
    )
    return (
        f"INSERT INTO {TOMBSTONE} (table_name, key, run, found_at) "
        f"SELECT {literal(table.name)}, u.key, $1, $2::timestamptz FROM ({unlisted}) AS u "
        f"WHERE NOT u.is_marked OR NOT EXISTS "
        f"(SELECT FROM {TOMBSTONE} AS d WHERE d.table_name = {literal(table.name)} AND d.key = u.key AND d.run > u.run) "
        f"ORDER BY u.key "
        f"ON CONFLICT (table_name, key) DO UPDATE SET run = excluded.run, found_at = excluded.found_at RETURNING key"
    )


def _rows_to_compare(contract: Contract, table: WarehouseTable) -> str:
    """The rows of `table` except inferred members that facts refer to."""
    name = relation(contract, table)
    references = [
        f"SELECT {quoted(column.name)} FROM {relation(contract, fact)}" for fact, column in contract.references_to(table.name)
    ]
    if not references:
        return name
    inferred, key = is_inferred(table), quoted("d", table.key[0])
    referred = f"SELECT FROM ({' UNION ALL '.join(references)}) AS f (key) WHERE f.key = {key}"
    return (
        f"(SELECT * FROM {name} WHERE NOT ({inferred}) "
        f"UNION ALL SELECT * FROM {name} AS d WHERE {inferred} AND NOT EXISTS ({referred}))"
    )


def select_staged_tombstones(table: WarehouseTable) -> str:
    """The keys of staged rows that have a tombstone."""
    key = ", ".join(codec_of(table.column(name).type).loaded(quoted("s", name)) for name in table.key)
    staged = f"SELECT jsonb_build_array({key}) FROM {quoted(staging_name(table))} AS s"
    return f"SELECT b.key FROM {TOMBSTONE} AS b WHERE b.table_name = {literal(table.name)} AND b.key IN ({staged})"


def update_deleted_at(contract: Contract, table: WarehouseTable) -> str:
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
        f"WHERE b.table_name = {literal(table.name)} AND b.key = ANY ($1::jsonb[]) AND {same} "
        f"AND t._deleted_at IS DISTINCT FROM ({moment})"
    )
