"""Compare keys: hashes of the source against hashes of the star, once every batch that would make them differ is loaded.

What differs is asked about, and nothing is changed (docs/decisions/0015-deletes-by-look-up.md).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import structlog

from contracts.contract import Contract
from contracts.key_hashes import TableHashes
from contracts.tables import Fact, RemodelledTable
from contracts.warehouse import COMPARISON, LEDGER, QUESTION, STAR_LOCK
from services.loading.deletes import key_texts, key_values
from services.loading.merge import is_stand_in
from services.loading.questions import Ask, Question, buckets_in_question, questions
from services.loading.schema import relation
from shared.key_hashes import bucket_of, hashed, select_sums, summed, unpacked
from shared.ledger import IS_COMPLETE
from shared.postgres import Database, read_in_parts
from shared.source_keys import Key
from shared.sql import quoted

COMPARISON_LOCK = 0x57A2_11F8  # an advisory lock: one loader compares at a time
PROGRESS = timedelta(minutes=5)  # an earlier run that has loaded nothing for so long is not waited for: a batch is stuck
LOADS_LIMIT = timedelta(seconds=10)  # for loads under way to end: others wait behind
ROWS_AT_ONCE = 10_000

_READY = f"""
WITH open AS (
    SELECT run, {IS_COMPLETE} AS is_complete, max(loaded_at) AS loaded_at
    FROM {LEDGER} GROUP BY run
)
SELECT c.table_name FROM {COMPARISON} AS c
WHERE EXISTS (SELECT FROM open AS o WHERE o.run = c.run AND o.is_complete)
AND NOT EXISTS (
    SELECT FROM open AS o
    WHERE o.run < c.run AND NOT o.is_complete AND o.loaded_at > clock_timestamp() - interval '{PROGRESS.seconds} seconds'
)
AND c.ended_at IS NULL
"""
_BEGIN = f"UPDATE {COMPARISON} SET begun_at = clock_timestamp() WHERE table_name = ANY ($1) AND begun_at IS NULL"
_BEGUN = f"""
SELECT table_name, run, batch_id, hashes FROM {COMPARISON}
WHERE table_name = ANY ($1) AND begun_at IS NOT NULL AND ended_at IS NULL ORDER BY table_name
"""
_END = f"UPDATE {COMPARISON} SET ended_at = clock_timestamp(), hashes = NULL WHERE table_name = $1 AND run = $2"
_FORGET = f"DELETE FROM {QUESTION} WHERE table_name = $1 AND run < $2"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class KeyComparison:
    """The comparisons of one star that can be made now."""

    database: Database
    contract: Contract
    ask: Ask

    async def run(self) -> int:
        """Make them; return how many keys were asked about.

        Another loader that is at it is left to it. Whoever has released the lock looks once more, and so sees what was loaded
        by those whom it turned away.
        """
        asked = 0
        while (more := await self._make()) is not None:
            asked += more
        return asked

    async def _make(self) -> int | None:
        """Make the comparisons that are ready now; None if there are none, or another loader makes them."""
        async with self.database.transaction(readonly=True) as connection:
            if not await connection.fetchval(f"SELECT EXISTS (SELECT FROM {COMPARISON} WHERE ended_at IS NULL)"):
                return None
            ready = [row["table_name"] for row in await connection.fetch(_READY)]
        if not ready:
            return None
        async with self.database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", COMPARISON_LOCK):
                return None
            await self._begin(ready)
            return sum([await self._compare(connection, record) for record in await connection.fetch(_BEGUN, ready)])

    async def _begin(self, tables: list[str]) -> None:
        """Mark comparisons as begun, alone with the star's lock, in a transaction of their own.

        Every load that has not seen the mark has ended by then, so what comes after sees its rows; every later load sees the
        mark, and asks about rows that come too late. Raises: ServerBusyError behind a long load, which tries again at its end.
        """
        async with self.database.transaction() as connection:
            await connection.execute(f"SET LOCAL lock_timeout = '{LOADS_LIMIT.seconds}s'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", STAR_LOCK)
            await connection.execute(_BEGIN, tables)

    async def _compare(self, connection: asyncpg.Connection, record: asyncpg.Record) -> int:
        table = next((one for one in self.contract.remodelled_tables if one.name == record["table_name"]), None)
        run, asked = record["run"], 0
        if table is not None:  # else a newer contract has it
            theirs = unpacked(TableHashes, record["hashes"])
            found = await connection.fetch(select_sums(select_hashes(self.contract, table), len(theirs.counts)), run)
            mine = ((row["bucket"], row["count"], int(row["sum"])) for row in found)
            if buckets := buckets_in_question(theirs, mine, run):
                keys = self._keys(connection, table, run, len(theirs.counts), buckets)
                asks = questions(table, run, record["batch_id"], keys, believe_empty=theirs.believe_empty)
                asked = await ask_each(self.database, self.ask, asks)
        await connection.execute(_FORGET, record["table_name"], run)
        await connection.execute(_END, record["table_name"], run)
        _log.info("keys_compared", run=run, table=record["table_name"], asked=asked)
        return asked

    async def _keys(
        self, connection: asyncpg.Connection, table: RemodelledTable, run: int, buckets: int, wanted: dict[int, int | None]
    ) -> AsyncIterator[Key]:
        statement = select_keys(self.contract, table, buckets)
        arguments = (run, list(wanted), list(wanted.values()))
        async for row in read_in_parts(connection, statement, *arguments, rows=ROWS_AT_ONCE):
            yield tuple(row)


async def ask_each(database: Database, ask: Ask, asks: AsyncIterator[Question]) -> int:
    """Ask questions; return how many keys they name.

    A question is recorded before it is sent: so its answer, however early, finds the record to remove.
    """
    asked = 0
    record = f"INSERT INTO {QUESTION} (id, table_name, run, key_count) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING"
    async for question in asks:
        async with database.transaction() as connection:
            await connection.execute(record, question.id, question.table.name, question.run, len(question.keys))
        await ask(question)
        asked += len(question.keys)
    return asked


def select_hashes(contract: Contract, table: RemodelledTable) -> str:
    """The hash of the key of each row that is alive and was last seen before run $1."""
    return f"SELECT {hashed(key_texts(table, 't'))} AS hash FROM {_compared_rows(contract, table)} AS t"


def select_keys(contract: Contract, table: RemodelledTable, buckets: int) -> str:
    """The keys of those rows that are in the buckets $2 (integer[]).

    For each bucket $3 (bigint[]) has the hash of the only key in question. NULL, or a hash that no row has, means all keys.
    """
    names = [f"k{position}" for position in range(len(table.key))]
    values = ", ".join(f"{value} AS {name}" for value, name in zip(key_values(table, "t"), names, strict=True))
    keys = f"SELECT {values}, {hashed(key_texts(table, 't'))} AS hash FROM {_compared_rows(contract, table)} AS t OFFSET 0"
    bucket = bucket_of("hash", buckets)
    return (
        f"WITH held AS MATERIALIZED (SELECT {', '.join(names)}, {summed('hash')} AS part, {bucket} AS bucket "
        f"FROM ({keys}) AS h WHERE {bucket} = ANY ($2::integer[])), "
        f"asked AS (SELECT * FROM unnest($2::integer[], $3::bigint[]) AS a (bucket, part)), "
        f"named AS (SELECT DISTINCT a.bucket FROM asked AS a JOIN held AS h USING (bucket, part)) "
        f"SELECT {', '.join(f'h.{name}' for name in names)} FROM held AS h JOIN asked AS a USING (bucket) "
        f"LEFT JOIN named AS n USING (bucket) WHERE n.bucket IS NULL OR h.part = a.part"
    )


def _compared_rows(contract: Contract, table: RemodelledTable) -> str:
    """A row for each key whose newest version is alive and below run $1, except inferred members that facts refer to."""
    name = relation(contract, table)
    if isinstance(table, Fact):
        key = ", ".join(quoted(column) for column in table.key)
        # Of the versions of a row only the newest can be marked as deleted.
        return f"(SELECT {key} FROM {name} GROUP BY {key} HAVING max(_run) < $1::bigint AND count(_deleted_at) = 0)"
    alive = "_run < $1::bigint AND _deleted_at IS NULL"
    return f"(SELECT * FROM {name} AS d WHERE {alive} AND NOT {is_stand_in(contract, table, 'd')})"
