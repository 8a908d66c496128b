"""What a load does about rows that are gone at the source (docs/decisions/0015-deletes-by-look-up.md).

A tombstone (table, key, run R') says that R' looked the row up in its snapshot and did not find it, or that the table's filter
rejects the row as R' has read it (docs/decisions/0017-filters.md). A row of the star is dead
if its highest `_run` is below that of its tombstone, whoever inserted it and whichever came first; then its newest version has
`_deleted_at`, and no other row has. So everything follows from the highest runs, and not from the order of arrival:

- Tombstones first, images later: the load of the image finds the tombstone of each row that it stages or infers, and marks.
- Images first, tombstones later: the load of the tombstones marks.
- Both at once: the load of tombstones holds the star's lock alone. Otherwise a load that has merged an older image, and not
  committed, would see no tombstone, while the tombstones' load would see no image, and neither would mark.
- Two loads that bring versions of one dead row at once: each would see its own version as the newest, and both be marked. So a
  load locks the tombstones of its rows, in the order of keys, before it merges: the second one waits, and then sees all
  versions. No tombstone can be added meanwhile, for that takes the lock alone.

Hashes of keys are only recorded here; services/loading/key_comparison.py uses them.

*Images that come late*, of a run below that of a comparison which has begun, are asked about here, since the comparison may not
have seen them. A comparison begins in a transaction that holds the star's lock alone, and this load has shared that lock since
before its first statement, until its commit. If the load reads that the comparison has not begun, then it begins after this
commit and sees the rows. If it reads that it has begun, it asks. The answer cannot change before the load ends. A comparison
that was replaced by that of a later run, which has not begun, needs nothing: the later one sees the rows.

Only a key whose newest image this load brought is asked about. If another load has brought a newer one, below the comparison as
well, then the comparison saw it, or that load asks; at or above the comparison, the row was there when it was compared.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import asyncpg

from contracts.column_types import ColumnType
from contracts.contract import Contract
from contracts.tables import Dimension, RemodelledTable, StoredTable, Versions, WarehouseTable
from contracts.warehouse import COMPARISON, DELETED_AT, QUESTION, RUN, SEEN_AT, TOMBSTONE
from services.loading.merge import except_unknown, staging_name
from services.loading.questions import cut, question_id
from services.loading.staging import Staged
from services.loading.warehouse import Ask, Batch, Question
from shared.codecs import codec_of
from shared.key_hashes import packed
from shared.postgres import read_in_parts
from shared.source_keys import Key
from shared.sql import literal, quoted
from shared.star_schema.schema import relation

FETCHED_KEYS = 10_000
_BOUNDS = re.compile(r"numeric\((\d+),(\d+)\)")

_RECORD_COMPARISON = f"""
INSERT INTO {COMPARISON} AS c (table_name, source_name, run, found_at, hashes, believe_empty, previous)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (table_name) DO UPDATE SET
    source_name = excluded.source_name, run = excluded.run, found_at = excluded.found_at, hashes = excluded.hashes,
    believe_empty = excluded.believe_empty, previous = excluded.previous, begun_at = NULL, ended_at = NULL,
    since = CASE WHEN c.next_bucket <> 0 THEN coalesce(c.since, c.run) END
WHERE excluded.run > c.run
"""
# The comparisons that rows of run $1 come too late for.
_BEGUN = f"SELECT table_name, run, believe_empty FROM {COMPARISON} WHERE begun_at IS NOT NULL AND run > $1"
# A question and its answer may be committed in either order; whichever comes second finds the row of the other. It waits for an
# uncommitted one, which is about to be committed: both are among the last statements of their transactions.
RECORD_QUESTION = f"""
INSERT INTO {QUESTION} AS q (id, table_name, run, key_count) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET table_name = excluded.table_name, run = excluded.run, key_count = excluded.key_count
"""
_RECORD_ANSWER = f"""
INSERT INTO {QUESTION} AS q (id, answered_by) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET answered_by = greatest(q.answered_by, excluded.answered_by)
"""


@dataclass(frozen=True, slots=True)
class Deletes:
    """The deletes of one load, in its transaction, which holds the star's lock: alone if the batch has `gone` keys."""

    connection: asyncpg.Connection
    contract: Contract
    batch: Batch
    touched: dict[str, list[str]] = field(default_factory=dict)  # by table: keys of staged rows that have a tombstone

    async def lock_tombstones(self, staged: Staged) -> None:
        """Lock the tombstones of the staged rows, before any is merged."""
        for table in self._staged():
            rows = await staged.fetch(lock_staged_tombstones(self.contract, table))
            self.touched[table.name] = [row["key"] for row in rows]

    async def apply(self, staged: Staged, inferred: dict[str, list[str]], ask: Ask) -> int:
        """Do what follows the merge: record comparisons, insert tombstones, mark dead rows, ask, record the answer.

        `inferred` are the keys, by table, of the inferred members that this load has inserted. Returns how many rows the new
        tombstones marked.
        """
        marked, raised = 0, await self.record()
        for table in self.contract.remodelled_tables:
            if table.name in raised:
                status = await self.connection.execute(update_deleted_at(self.contract, table), raised[table.name])
                marked += int(status.split()[-1])
            touched = [*self.touched.get(table.name, ()), *inferred.get(table.name, ())]
            if touched:
                await self.connection.execute(update_deleted_at(self.contract, table), touched)
        await self._ask_about_late_rows(staged, ask)
        await self.record_answer()
        return marked

    async def record(self) -> dict[str, list[str]]:
        """Record comparisons and insert tombstones; return, by table, the keys whose tombstone is new or higher."""
        await self._record_comparisons()
        data, raised = self.batch.event.data, dict[str, list[str]]()
        for table in self.contract.remodelled_tables:
            if keys := self.batch.gone_from(table):
                texts = [[str(key[position]) for key in keys] for position in range(len(table.key))]
                gone_by = (data.run, data.snapshot.taken_at, *texts)
                rows = await self.connection.fetch(insert_tombstones(self.contract, table), *gone_by)
                raised[table.name] = [row["key"] for row in rows]
                if isinstance(table, Dimension) and table.versions is not None:  # also of a run that no tombstone remembers
                    await self.connection.execute(add_deletions(self.contract, table.versions), *gone_by)
        return raised

    async def record_answer(self) -> None:
        """Record which question the batch answers."""
        if self.batch.answers is not None:
            await self.connection.execute(self.contract.own(_RECORD_ANSWER), self.batch.answers, self.batch.event.data.run)

    async def _record_comparisons(self) -> None:
        data, hashes = self.batch.event.data, self.batch.hashes
        if hashes is None:
            return
        for table in self.contract.remodelled_tables:
            for found in hashes.tables:
                if found.is_of(table):
                    record = (
                        table.name,
                        data.source_name,
                        data.run,
                        data.snapshot.taken_at,
                        packed(found),
                        found.believe_empty,
                        hashes.previous,
                    )
                    await self.connection.execute(self.contract.own(_RECORD_COMPARISON), *record)

    async def _ask_about_late_rows(self, staged: Staged, ask: Ask) -> None:
        """Ask before the commit: after a crash in between, the batch comes again and asks again."""
        data = self.batch.event.data
        begun = {row["table_name"]: row for row in await self.connection.fetch(self.contract.own(_BEGUN), data.run)}
        for table in self._staged():
            if (comparison := begun.get(table.name)) is None:
                continue
            query, arguments = staged.bound(select_late_keys(self.contract, table), data.run)
            asked = list[tuple[object, ...]]()
            async for keys in cut(keys_in_parts(self.connection, query, *arguments)):
                number = question_id(data.batch_id, table.name, keys)
                about = (table, data.source_name, comparison["run"], keys)
                await ask(Question(number, *about, believe_empty=comparison["believe_empty"]))
                asked.append((number, table.name, comparison["run"], len(keys)))
            await self.connection.executemany(self.contract.own(RECORD_QUESTION), asked)

    def _staged(self) -> Iterator[RemodelledTable]:
        return (table for table in self.contract.remodelled_tables if table.name in self.batch.rows)


async def keys_in_parts(connection: asyncpg.Connection, query: str, *arguments: object) -> AsyncIterator[Key]:
    """The keys that a query selects, of which FETCHED_KEYS at a time are held."""
    async for row in read_in_parts(connection, query, *arguments, rows=FETCHED_KEYS):
        yield tuple(row)


# The statements. They name a row's business key as the tombstone table does, as a JSON array.


def insert_tombstones(contract: Contract, table: WarehouseTable) -> str:
    """Insert a tombstone of run $1, found at $2, for each key; $3 and on: an array of texts for each column of the key.

    Of two tombstones that of the higher run stays. Returns the keys whose tombstone is new or higher.
    """
    key = ", ".join(_from_text(table, position, f"k{position}") for position in range(len(table.key)))
    return (
        f"INSERT INTO {contract.own(TOMBSTONE)} AS b (table_name, key, run, found_at) "
        f"SELECT DISTINCT {literal(table.name)}, jsonb_build_array({key}), run, found_at FROM ({_gone(table)}) AS gone "
        f"ON CONFLICT (table_name, key) DO UPDATE SET run = excluded.run, found_at = excluded.found_at "
        f"WHERE excluded.run > b.run RETURNING key"
    )


def _gone(table: StoredTable) -> str:
    """The keys k0, k1, … of the arrays $3, $4, …, with the run $1 that looked them up, and $2, when."""
    names = ", ".join(f"k{position}" for position in range(len(table.key)))
    arrays = ", ".join(f"${place}::text[]" for place in range(3, 3 + len(table.key)))
    return f"SELECT {names}, $1::bigint AS run, $2::timestamptz AS found_at FROM unnest({arrays}) AS k ({names})"


def add_deletions(contract: Contract, versions: Versions, *, of_tombstones: str | None = None) -> str:
    """Into the table of versions, that a run did not find keys: those given as for `insert_tombstones`.

    Or those that have a tombstone as rows of `of_tombstones`. What the columns of the key can't hold is not the key of a row.
    """
    columns = [versions.column(name).type for name in versions.key]
    keys = ", ".join(f"{_from_text(versions, position, f'k{position}')}" for position in range(len(columns)))
    fits = " AND ".join(_fits(kind, f"k{position}") for position, kind in enumerate(columns))
    gone = _gone(versions)
    if of_tombstones is not None:
        names = ", ".join(f"key ->> {position} AS k{position}" for position in range(len(columns)))
        gone = f"SELECT {names}, run, found_at FROM {contract.own(TOMBSTONE)} WHERE table_name = {literal(of_tombstones)}"
    return (
        f"INSERT INTO {relation(contract, versions)} ({', '.join(map(quoted, versions.key))}, {RUN}, {SEEN_AT}, {DELETED_AT}) "
        f"SELECT DISTINCT {keys}, run, found_at, found_at FROM ({gone}) AS gone WHERE {fits} "
        f"ON CONFLICT DO NOTHING"
    )


def _fits(kind: ColumnType, text: str) -> str:
    """Whether a column of this type of key can hold the value of the SQL `text` as it is."""
    if kind.is_text and kind.length:
        return f"length({text}) <= {kind.length}"
    if kind.is_decimal and (bounds := _BOUNDS.fullmatch(kind.sql)):
        precision, scale = map(int, bounds.groups())
        return f"abs({text}::numeric) < 1e{precision - scale} AND {text}::numeric = round({text}::numeric, {scale})"
    return "true"


def lock_staged_tombstones(contract: Contract, table: WarehouseTable) -> str:
    """Lock the tombstones of staged rows until the end of the transaction, in the order of keys, and return their keys."""
    key = ", ".join(codec_of(table.column(name).type).loaded(quoted("s", name)) for name in table.key)
    staged = f"SELECT jsonb_build_array({key}) FROM {quoted(staging_name(table))} AS s"
    has_tombstone = f"b.table_name = {literal(table.name)} AND b.key IN ({staged})"
    return f"SELECT b.key FROM {contract.own(TOMBSTONE)} AS b WHERE {has_tombstone} ORDER BY b.key FOR UPDATE OF b"


def select_late_keys(contract: Contract, table: WarehouseTable) -> str:
    """The keys, as a question has them, of staged rows whose newest image is of run $1, without those that have died since."""
    columns = [codec_of(table.column(name).type).loaded(quoted("s", name)) for name in table.key]
    staged = ", ".join(f"{column} AS {quoted(name)}" for column, name in zip(columns, table.key, strict=True))
    key = ", ".join(quoted("t", name) for name in table.key)
    same = " AND ".join(f"{quoted('s', name)} = {quoted('t', name)}" for name in table.key)
    newest = (
        f"SELECT {key}, max(t._run) AS _run FROM {relation(contract, table)} AS t "
        f"JOIN (SELECT DISTINCT {staged} FROM {quoted(staging_name(table))} AS s) AS s ON {same} GROUP BY {key}"
    )
    alive = f"FROM ({newest}) AS t WHERE t._run = $1::bigint AND NOT {is_dead(contract, table)}"
    return f"SELECT {', '.join(in_question(table, 't'))} {alive} ORDER BY {key}"


def is_dead(contract: Contract, table: WarehouseTable) -> str:
    """Whether the row `t`, with its highest `_run`, has a tombstone above it.

    Not whether it is marked: the columns of a tombstone's key are compared, which PostgreSQL does as one join of the table.
    """
    columns = ", ".join(f"{_from_text(table, n, f'b.key ->> {n}')} AS k{n}" for n in range(len(table.key)))
    tombstones = f"SELECT {columns}, b.run FROM {contract.own(TOMBSTONE)} AS b WHERE b.table_name = {literal(table.name)}"
    same = " AND ".join(f"b.k{position} = {quoted('t', name)}" for position, name in enumerate(table.key))
    return f"EXISTS (SELECT FROM ({tombstones}) AS b WHERE {same} AND b.run > t._run)"


def in_question(table: WarehouseTable, alias: str) -> list[str]:
    """The columns of a key as a question has them: whole numbers, and the texts of everything else."""
    columns = ((quoted(alias, name), table.column(name).type) for name in table.key)
    return [column if kind.is_whole_number else codec_of(kind).key_text(column) for column, kind in columns]


def update_deleted_at(contract: Contract, table: WarehouseTable, *, every_key: bool = False) -> str:
    """`_deleted_at` as it should be, for every version of the rows that have a tombstone: those with the keys $1 (jsonb[])."""
    same = " AND ".join(
        f"{quoted('t', name)} = {_from_text(table, position, f'(b.key ->> {position})')}"
        for position, name in enumerate(table.key)
    )
    condition = f"t._run < b.run{except_unknown(table, 't')}"
    if table.version:
        key = " AND ".join(f"{quoted('n', name)} = {quoted('t', name)}" for name in table.key)
        order = ", ".join(("{0}._run", *(f"{{0}}.{quoted(name)}" for name in table.version)))
        newer = f"{key} AND ({order.format('n')}) > ({order.format('t')})"
        condition += f" AND NOT EXISTS (SELECT FROM {relation(contract, table)} AS n WHERE {newer})"
    moment, chosen = f"CASE WHEN {condition} THEN b.found_at END", "" if every_key else " AND b.key = ANY ($1::jsonb[])"
    return (
        f"UPDATE {relation(contract, table)} AS t SET _deleted_at = {moment} FROM {contract.own(TOMBSTONE)} AS b "
        f"WHERE b.table_name = {literal(table.name)}{chosen} AND {same} "
        f"AND t._deleted_at IS DISTINCT FROM ({moment})"
    )


def _from_text(table: StoredTable, position: int, text: str) -> str:
    """The SQL `text` as the column of the key, without bounds."""
    return f"({text})::{table.column(table.key[position]).type.unbounded_sql}"
