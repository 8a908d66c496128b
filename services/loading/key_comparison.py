"""Comparing the hashes of a source's keys with the star's, and asking about the keys of the buckets that differ.

Three transactions, none of which a load takes part in (docs/decisions/0015-deletes-by-look-up.md argues the whole):

1. *Due?* Every batch of the run is loaded, and no earlier run still loads: missing rows would make every bucket differ.
2. *Begin*, alone with the star: from its commit on, a load that brings an image of an earlier run asks about it itself. It
   waits for the loads under way, whose rows the next statement then sees.
3. *Compare*: one statement reads the star's side, in one snapshot and without a lock. The keys in question are asked about in
   parts as they are read. The questions and the end are committed together, at the end. After a crash before that, the
   comparison has begun and not ended, and the next loader that looks repeats it: the same keys have the same question.

*Several loaders.* A loader that finds a comparison due tries COMPARISON_LOCK; those that don't get it go on loading. None is
forgotten: after releasing the lock a loader looks once more, and so sees what those that it turned away have loaded.

*A later run's hashes* may replace a comparison at any time. Its end then finds no row, and leaves the questions that it has
sent unrecorded: their answers are true all the same, and the later comparison finds what they may not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg

from contracts.contract import Contract
from contracts.key_hashes import TableHashes
from contracts.tables import RemodelledTable, WarehouseTable
from contracts.warehouse import COMPARISON, COMPARISON_LOCK, QUESTION, STAR_LOCK
from services.loading.deletes import RECORD_QUESTION, in_question, is_dead, keys_in_parts
from services.loading.merge import except_unknown, is_inferred
from services.loading.questions import Suspects, cut, question_id, suspects
from services.loading.warehouse import EARLIER_RUN_PATIENCE, Ask, Question
from shared.codecs import codec_of
from shared.key_hashes import bucket_of, hashed, select_sums, summed, unpacked
from shared.ledger import is_complete, is_earlier_run_loading
from shared.sql import quoted
from shared.star_schema.schema import relation

# For loads under way to end; loads that start meanwhile queue behind. A load that outlasts it compares keys when it ends.
LOADS_LIMIT = timedelta(seconds=10)

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock($1)"
_PENDING = f"""
SELECT table_name, source_name, run, coalesce(previous + 1, run) AS waits_below, begun_at IS NOT NULL AS has_begun
FROM {COMPARISON} WHERE ended_at IS NULL
"""
_BEGIN = f"""
UPDATE {COMPARISON} AS c SET begun_at = clock_timestamp()
FROM unnest($1::text[], $2::bigint[]) AS due (table_name, run)
WHERE c.table_name = due.table_name AND c.run = due.run AND c.begun_at IS NULL
"""
_HASHES = f"""
SELECT hashes, next_bucket FROM {COMPARISON}
WHERE table_name = $1 AND run = $2 AND begun_at IS NOT NULL AND ended_at IS NULL
"""
_END = f"""
UPDATE {COMPARISON} SET
    ended_at = clock_timestamp(), hashes = NULL, next_bucket = $3, since = CASE WHEN $4 THEN NULL ELSE since END
WHERE table_name = $1 AND run = $2 AND ended_at IS NULL RETURNING coalesce(since, run)
"""
# What was asked before a rotation began was asked about rows that the rotation looks at again. An answer without a question is
# that of a loader that crashed, or is about to commit.
_FORGET = f"DELETE FROM {QUESTION} WHERE table_name = $1 AND run < $2"
_FORGET_STRAYS = f"DELETE FROM {QUESTION} WHERE table_name IS NULL AND asked_at < clock_timestamp() - interval '1 day'"


@dataclass(frozen=True, slots=True)
class _Due:
    """A comparison that has nothing to wait for."""

    table: RemodelledTable
    source_name: str
    run: int
    has_begun: bool


@dataclass(frozen=True, slots=True)
class KeyComparisons:
    """The key comparisons of one star; `transaction` opens one in its database."""

    transaction: Callable[[], AbstractAsyncContextManager[asyncpg.Connection]]
    contract: Contract

    async def compare(self, ask: Ask) -> int:
        """Make every comparison that is due, unless another loader does; return how many keys were asked about.

        Raises: ServerBusyError when loads hold the star for longer than LOADS_LIMIT; and what `ask` raises.
        """
        asked = 0
        while due := await self._due():
            is_ours = await self._begin(due) if not all(one.has_begun for one in due) else True
            for one in due:
                count = await self._compare(one, ask) if is_ours else None
                if count is None:  # another loader has the lock, and looks once more when it has released it
                    return asked
                asked += count
        return asked

    async def _due(self) -> list[_Due]:
        async with self.transaction() as connection:
            pending = await connection.fetch(self.contract.own(_PENDING))
            ready: dict[tuple[str, int], bool] = {}
            for source_name, run, below in {(row["source_name"], row["run"], row["waits_below"]) for row in pending}:
                about = (connection, self.contract, source_name)
                ready[source_name, run] = await is_complete(*about, run) and not await is_earlier_run_loading(
                    *about, below, EARLIER_RUN_PATIENCE
                )
        due = {row["table_name"]: row for row in pending if ready[row["source_name"], row["run"]]}
        tables = (table for table in self.contract.remodelled_tables if table.name in due)
        columns = ("source_name", "run", "has_begun")
        return [_Due(table, *(due[table.name][column] for column in columns)) for table in tables]

    async def _begin(self, due: Sequence[_Due]) -> bool:
        """Mark comparisons as begun; return False if another loader is at work. Nothing else is done while the star is held."""
        async with self.transaction() as connection:
            if not await connection.fetchval(_TRY_LOCK, self.contract.own_lock(COMPARISON_LOCK)):
                return False
            await connection.execute(f"SET LOCAL lock_timeout = '{LOADS_LIMIT.seconds}s'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", self.contract.own_lock(STAR_LOCK))
            begun = [one.table.name for one in due], [one.run for one in due]
            await connection.execute(self.contract.own(_BEGIN), *begun)
        return True

    async def _compare(self, due: _Due, ask: Ask) -> int | None:
        """Compare one table and ask; return how many keys were asked about, or None if another loader is at work.

        Holds the sums of 65,536 buckets and the keys of one question.
        """
        async with self.transaction() as connection:
            if not await connection.fetchval(_TRY_LOCK, self.contract.own_lock(COMPARISON_LOCK)):
                return None
            stored = await connection.fetchrow(self.contract.own(_HASHES), due.table.name, due.run)
            if stored is None:  # another loader has ended it, or a later run has replaced it
                return 0
            theirs = unpacked(TableHashes, stored["hashes"])
            rows = await connection.fetch(select_bucket_sums(self.contract, due.table, len(theirs.counts)), due.run)
            ours = {row["bucket"]: (row["count"], int(row["sum"])) for row in rows}
            found = suspects(theirs, ours, stored["next_bucket"])
            asked = list[tuple[UUID, str, int, int]]()
            if found.named:
                query = select_suspects(self.contract, due.table, len(theirs.counts))
                keys = keys_in_parts(connection, query, due.run, list(found.named), list(found.named.values()))
                async for part in cut(keys):
                    number = question_id(due.run, due.table.name, part)
                    await ask(Question(number, due.table, due.source_name, due.run, part, believe_empty=theirs.believe_empty))
                    asked.append((number, due.table.name, due.run, len(part)))
            await self._end(connection, due, found, asked)
        return sum(key_count for _, _, _, key_count in asked)

    async def _end(
        self, connection: asyncpg.Connection, due: _Due, found: Suspects, asked: Sequence[tuple[UUID, str, int, int]]
    ) -> None:
        own = self.contract.own
        since = await connection.fetchval(own(_END), due.table.name, due.run, found.next_place, found.is_whole)
        if since is None:
            return
        await connection.execute(own(_FORGET), due.table.name, since)
        await connection.execute(own(_FORGET_STRAYS))
        await connection.executemany(own(RECORD_QUESTION), sorted(asked))


# The statements.


def select_bucket_sums(contract: Contract, table: RemodelledTable, buckets: int) -> str:
    """The count and sum of each bucket of the rows that are compared with hashes of run $1."""
    columns = _key_texts(table)
    return select_sums(f"SELECT {hashed(columns)} AS hash FROM ({_compared_rows(contract, table)}) AS t", buckets)


def select_suspects(contract: Contract, table: RemodelledTable, buckets: int) -> str:
    """The keys in question of a comparison with hashes of run $1: of the buckets $2, with the parts of hashes named by $3.

    The star may have changed since the sums were read. A key that has come since is asked about for nothing, and where the
    named key has gone, so are all of its bucket.
    """
    columns = _key_texts(table)
    hashes = f"SELECT t.*, {hashed(columns)} AS _hash FROM ({_compared_rows(contract, table)}) AS t OFFSET 0"
    is_named = f"coalesce({summed('h._hash')} = d.named, false)"
    found = (
        f"SELECT h.*, d.bucket AS _bucket, {is_named} AS _is_named, "
        f"bool_or({is_named}) OVER (PARTITION BY d.bucket) AS _has_named "
        f"FROM ({hashes}) AS h JOIN unnest($2::integer[], $3::bigint[]) AS d (bucket, named) "
        f"ON {bucket_of('h._hash', buckets)} = d.bucket"
    )
    order = ", ".join(["t._bucket", *(quoted("t", name) for name in table.key)])
    chosen = f"FROM ({found}) AS t WHERE t._is_named OR NOT t._has_named"
    return f"SELECT {', '.join(in_question(table, 't'))} {chosen} ORDER BY {order}"


def _key_texts(table: RemodelledTable) -> list[str]:
    return [codec_of(table.column(name).type).key_text(quoted("t", name)) for name in table.key]


def _compared_rows(contract: Contract, table: RemodelledTable) -> str:
    """The keys, with their highest `_run`, that are alive and below run $1, except inferred members that facts may refer to.

    The source's side leaves out the rows that run $1 has read, and these have its number here. Where earlier rows are all
    loaded, both sides are equal, however many rows have changed since the last comparison. A dead row whose mark was
    removed by hand counts as well: it is asked about, and the answer marks it.
    """
    rows = _rows_to_compare(contract, table)
    key = ", ".join(quoted("t", name) for name in table.key)
    if table.version:
        marked = "bool_or(t._deleted_at IS NOT NULL) AS is_marked"
        rows = f"(SELECT {key}, max(t._run) AS _run, {marked} FROM {rows} AS t GROUP BY {key})"
    else:
        rows = f"(SELECT {key}, t._run, t._deleted_at IS NOT NULL AS is_marked FROM {rows} AS t)"
    return (
        f"SELECT {key}, t._run FROM {rows} AS t WHERE t._run < $1::bigint AND NOT (t.is_marked AND {is_dead(contract, table)})"
        f"{except_unknown(table, 't')}"
    )


def _rows_to_compare(contract: Contract, table: WarehouseTable) -> str:
    """The rows of `table` except inferred members that facts refer to: they stand for rows that are not at the source."""
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
