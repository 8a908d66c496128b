"""What a load does about rows that are gone at the source (docs/decisions/0015-deletes-by-look-up.md).

A run R looked a row up and did not find it: the row gets a tombstone of R, whatever the star holds. A row is alive while its
highest `_run` is above its tombstone's; of a dead row the newest version has `_deleted_at`, and no other row has. An inferred
member lives while a fact refers to it. The result depends only on the highest runs, not on the order of arrival.

Tombstones need the star's lock alone. Otherwise a load that has merged an older image of such a row, and not yet committed,
sees no tombstone, and the batch with the tombstone sees no image to mark. Two loads at once that bring versions of one dead row
would both mark their own as the newest: so a load locks the tombstones of its rows, in the order of keys, before it merges.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg

from contracts.contract import Contract
from contracts.tables import Fact, RemodelledTable, WarehouseTable
from contracts.warehouse import COMPARISON, QUESTION, TOMBSTONE
from services.loading.merge import is_stand_in, staging_name
from services.loading.schema import relation
from services.loading.warehouse import Batch
from shared.codecs import codec_of
from shared.key_hashes import packed
from shared.postgres import read_in_parts
from shared.source_keys import Key
from shared.sql import literal, quoted

LATE_ROWS_AT_ONCE = 10_000  # in memory

# A comparison that a later run has replaced is not made: the later one finds whatever it would have found.
_RECORD_COMPARISON = f"""
INSERT INTO {COMPARISON} AS c (table_name, run, found_at, batch_id, hashes) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (table_name) DO UPDATE SET
    run = excluded.run, found_at = excluded.found_at, batch_id = excluded.batch_id, hashes = excluded.hashes,
    begun_at = NULL, ended_at = NULL
WHERE excluded.run > c.run
"""
_BEGUN = f"SELECT table_name, run FROM {COMPARISON} WHERE begun_at IS NOT NULL AND run > $1"


@dataclass(frozen=True, slots=True)
class Deletes:
    """The deletes of one load, in its transaction and after it has merged the rows of its batch."""

    connection: asyncpg.Connection
    contract: Contract
    batch: Batch

    async def lock_staged(self) -> None:
        """Lock the tombstones of the staged rows: another load of these rows then waits, and sees what this one has brought."""
        for table in self.contract.warehouse_tables:
            if table.name in self.batch.rows:
                await self.connection.execute(f"{select_staged_tombstones(table)} ORDER BY b.key FOR UPDATE")

    async def apply(self) -> int:
        """Mark what is dead, and record the comparison that the batch asks for. Returns how many rows were found gone."""
        data = self.batch.event.data
        for table in self.contract.warehouse_tables:
            if table.name in self.batch.rows:
                rows = await self.connection.fetch(select_staged_tombstones(table))
                await self._mark(table, [row["key"] for row in rows])
        gone = 0
        for missing in self.batch.gone:
            for table in self.contract.remodelled_from(missing.table):
                gone += await self._bury(table, missing.keys)
        for hashes in self.batch.hashes.tables if self.batch.hashes else ():
            for table in self.contract.remodelled_from(hashes.table):
                record = (table.name, data.run, data.snapshot.taken_at, data.batch_id, packed(hashes))
                await self.connection.execute(_RECORD_COMPARISON, *record)
        if self.batch.answers is not None:
            await self.connection.execute(f"DELETE FROM {QUESTION} WHERE id = $1", self.batch.answers)
        return gone

    async def late_tables(self) -> list[tuple[RemodelledTable, int]]:
        """The tables of this batch's rows whose keys a later run has begun to compare, with the number of that run.

        Such a comparison may not have seen the rows of this load. Every other one will: it begins alone with the star's lock,
        so not before this load has ended.
        """
        rows = await self.connection.fetch(_BEGUN, self.batch.event.data.run)
        begun: dict[str, int] = {row["table_name"]: row["run"] for row in rows}
        tables = ((table, begun.get(table.name)) for table in self.contract.remodelled_tables if table.name in self.batch.rows)
        return [(table, run) for table, run in tables if run is not None]

    async def late_keys(self, table: RemodelledTable, run: int) -> AsyncIterator[Key]:
        """The keys of the batch's rows that are alive, and were last seen before `run`."""
        async for row in read_in_parts(self.connection, select_late_keys(self.contract, table), run, rows=LATE_ROWS_AT_ONCE):
            yield tuple(row)

    async def _bury(self, table: RemodelledTable, keys: tuple[Key, ...]) -> int:
        """Insert tombstones of this run; return how many rows of the star died of it."""
        data = self.batch.event.data
        columns = [[str(key[position]) for key in keys] for position in range(len(table.key))]
        buried = await self.connection.fetch(insert_tombstones(table), data.run, data.snapshot.taken_at, *columns)
        return await self._mark(table, [row["key"] for row in buried])

    async def _mark(self, table: WarehouseTable, keys: list[str]) -> int:
        if not keys:
            return 0
        return len(await self.connection.fetch(update_deleted_at(self.contract, table), keys))


# The statements. They name a row's business key as the tombstone table does, as a JSON array.


def key_texts(table: WarehouseTable, alias: str) -> list[str]:
    """The columns of a row's key as texts, which source and star spell alike."""
    return [f"{quoted(alias, name)}::text" for name in table.key]


def key_values(table: WarehouseTable, alias: str) -> list[str]:
    """The columns of a row's key as a question has them: numbers, and the text of everything else."""
    kinds = ((name, table.column(name).type) for name in table.key)
    return [quoted(alias, name) if kind.is_whole_number else f"{quoted(alias, name)}::text" for name, kind in kinds]


def insert_tombstones(table: RemodelledTable) -> str:
    """Tombstones of run $1, found at $2, for the keys in $3 and so on, a text array for each column; the highest run stays.

    Returns the keys. They are sorted, so that two loaders lock tombstones in the same order.
    """
    names = [f"k{position}" for position in range(len(table.key))]
    kinds = [table.column(name).type for name in table.key]
    key = ", ".join(name if kind.is_text else f"{name}::{kind.sql}" for name, kind in zip(names, kinds, strict=True))
    given = ", ".join(f"${place}::text[]" for place in range(3, 3 + len(names)))
    return (
        f"INSERT INTO {TOMBSTONE} AS b (table_name, key, run, found_at) "
        f"SELECT {literal(table.name)}, g.key, $1::bigint, $2::timestamptz "
        f"FROM (SELECT DISTINCT jsonb_build_array({key}) AS key FROM unnest({given}) AS k ({', '.join(names)})) AS g "
        f"ORDER BY g.key "
        f"ON CONFLICT (table_name, key) DO UPDATE SET run = excluded.run, found_at = excluded.found_at "
        f"WHERE excluded.run > b.run RETURNING key"
    )


def select_staged_tombstones(table: WarehouseTable) -> str:
    """The keys of staged rows that have a tombstone."""
    staged = f"SELECT jsonb_build_array({_staged_key(table)}) FROM {quoted(staging_name(table))} AS s"
    return f"SELECT b.key FROM {TOMBSTONE} AS b WHERE b.table_name = {literal(table.name)} AND b.key IN ({staged})"


def select_late_keys(contract: Contract, table: RemodelledTable) -> str:
    """The keys of staged rows whose newest image is below run $1 and not below a tombstone."""
    names = ", ".join(quoted(name) for name in table.key)
    staged = f"SELECT DISTINCT {_staged_key(table)} FROM {quoted(staging_name(table))} AS s"
    same = " AND ".join(f"{quoted('t', name)} = {quoted('s', name)}" for name in table.key)
    newest = f"SELECT max(t._run) AS run FROM {relation(contract, table)} AS t WHERE {same}"
    buried = (
        f"SELECT FROM {TOMBSTONE} AS b WHERE b.table_name = {literal(table.name)} "
        f"AND b.key = jsonb_build_array({', '.join(quoted('s', name) for name in table.key)}) AND b.run > newest.run"
    )
    return (
        f"SELECT {', '.join(key_values(table, 's'))} FROM ({staged}) AS s ({names}) CROSS JOIN LATERAL ({newest}) AS newest "
        f"WHERE newest.run < $1::bigint AND NOT EXISTS ({buried})"
    )


def _staged_key(table: WarehouseTable) -> str:
    return ", ".join(codec_of(table.column(name).type).loaded(quoted("s", name)) for name in table.key)


def update_deleted_at(contract: Contract, table: WarehouseTable) -> str:
    """`_deleted_at` as it should be for every version of the rows with the keys $1 (jsonb[]), all of which have a tombstone.

    Returns a row for each version that died.
    """
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
    else:
        is_dead += f" AND NOT {is_stand_in(contract, table, 't')}"
    moment = f"CASE WHEN {is_dead} THEN b.found_at END"
    updated = (
        f"UPDATE {relation(contract, table)} AS t SET _deleted_at = {moment} FROM {TOMBSTONE} AS b "
        f"WHERE b.table_name = {literal(table.name)} AND b.key = ANY ($1::jsonb[]) AND {same} "
        f"AND t._deleted_at IS DISTINCT FROM ({moment}) RETURNING t._deleted_at"
    )
    return f"WITH updated AS ({updated}) SELECT 1 FROM updated WHERE _deleted_at IS NOT NULL"
