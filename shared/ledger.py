"""Every query of the loader's own tables in the warehouse (contracts/warehouse.py).

Each function reads through `warehouse`, a connection of the caller, whose transaction decides what it sees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

import asyncpg

from contracts.contract import Contract
from contracts.messages import BatchLoaded, decode
from contracts.tables import WarehouseTable
from contracts.warehouse import APPLIED_CONTRACT, BULK_LEDGER, COMPARISON, HAS_SINCE, LEDGER, QUESTION, TOMBSTONE
from shared.stored_documents import read_stored

# Whether the rows of a run have all of its batches. A batch that was replayed from the quarantine is in the ledger twice.
_IS_COMPLETE = """
coalesce(count(DISTINCT batch_index) = max(batch_index) FILTER (WHERE (event -> 'data' ->> 'is_last')::boolean) + 1, false)
"""
RUNS = f"""
SELECT run, array_agg(batch_id) AS batches, {_IS_COMPLETE} AS is_complete
FROM {LEDGER}
WHERE source_name = $1 AND run >= $2
GROUP BY run
"""
# Whether a run before $2 is incomplete and has loaded a batch within $3.
_EARLIER_RUN = f"""
SELECT EXISTS (
    SELECT FROM (
        SELECT DISTINCT run FROM {LEDGER}
        WHERE source_name = $1 AND run < $2 AND loaded_at > clock_timestamp() - $3::interval
    ) AS recent
    WHERE NOT (SELECT {_IS_COMPLETE} FROM {LEDGER} AS l WHERE l.source_name = $1 AND l.run = recent.run)
)
"""
_HAS_EVERY_BATCH = f"""
SELECT {_IS_COMPLETE}
FROM (SELECT * FROM {LEDGER} UNION ALL SELECT * FROM {BULK_LEDGER}) AS l
WHERE source_name = $1 AND run = $2
"""
BATCHES = f"SELECT batch_id FROM {LEDGER} WHERE $1::uuid[] IS NULL OR batch_id = ANY ($1)"
_ROW_COUNT = f"""
SELECT coalesce(sum((loaded ->> 'row_count')::bigint), 0)
FROM {LEDGER}, jsonb_array_elements(event -> 'data' -> 'tables') AS loaded
WHERE run = $1
"""
_HORIZONS = f"""
SELECT DISTINCT run, (event -> 'data' -> 'snapshot' ->> 'horizon')::bigint AS horizon
FROM {LEDGER} WHERE source_name = $1 AND run = ANY ($2::bigint[])
"""
_WITHOUT_REFUSALS = f"""
SELECT run, batch_index FROM {LEDGER} WHERE source_name = $1 AND run = ANY ($2::bigint[]) GROUP BY run, batch_index
HAVING (array_agg((event -> 'data' ->> 'quarantined')::bigint ORDER BY loaded_at DESC))[1] = 0
"""
# In a form in which the index of the ledger answers.
_OTHER_SOURCE = f"""
SELECT l.source_name FROM {LEDGER} AS l
WHERE (l.source_name < $1 OR l.source_name > $1) AND EXISTS (
    SELECT FROM jsonb_array_elements(l.event -> 'data' -> 'tables') AS loaded WHERE loaded ->> 'table' = ANY ($2::text[])
)
LIMIT 1
"""
# An answer may come in several batches: until all are loaded, the question is open.
_IS_OPEN = f"""
(
    q.answered_by IS NULL
    OR NOT (SELECT {_IS_COMPLETE} FROM {LEDGER} AS l WHERE l.source_name = c.source_name AND l.run = q.answered_by)
)
"""
COMPARISONS = f"""
SELECT c.table_name, c.run, coalesce(c.since, c.run),
    coalesce((SELECT min(snapshot_at) FROM {LEDGER} AS l WHERE l.source_name = c.source_name AND l.run = c.since), c.found_at),
    c.ended_at IS NOT NULL, c.next_bucket = 0, count(q.id), clock_timestamp() - min(q.asked_at)
FROM {COMPARISON} AS c
LEFT JOIN {QUESTION} AS q ON q.table_name = c.table_name AND {_IS_OPEN}
WHERE $1::text[] IS NULL OR c.table_name = ANY ($1)
GROUP BY c.table_name
"""
OPEN_QUESTIONS = f"""
SELECT q.id, q.table_name, q.answered_by
FROM {QUESTION} AS q JOIN {COMPARISON} AS c ON q.table_name = c.table_name AND {_IS_OPEN}
WHERE $1::text[] IS NULL OR q.table_name = ANY ($1)
"""
# The batches of source $1 that loaded rows of table $2 in runs above $3, in the order of their runs.
TABLE_BATCHES = f"""
SELECT l.batch_id, l.run, l.batch_index, l.loaded_at, (loaded ->> 'row_count')::bigint AS row_count
FROM {LEDGER} AS l, jsonb_array_elements(l.event -> 'data' -> 'tables') AS loaded
WHERE l.source_name = $1 AND loaded ->> 'table' = $2 AND (loaded ->> 'row_count')::bigint > 0 AND l.run > $3
ORDER BY l.run, l.batch_index
"""


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """The batches of a run that are loaded; it is complete when its last batch and every batch before it are."""

    run: int
    batches: frozenset[UUID]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class LoadedEvent:
    """A batch as the ledger records it; `committed_at` is the last moment of the transaction that merged it."""

    event: BatchLoaded
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class KeyComparison:
    """The last key comparison of a table, and the rotation of which it is a part.

    Of very many keys in question one comparison asks about a part, and the next ones go on. Usually one is the whole rotation.
    """

    run: int  # whose hashes are compared
    since: int  # the run whose comparison began the rotation
    found_at: datetime  # the snapshot of `since`, by the source's clock
    has_ended: bool  # whether every key that this comparison asks about has been asked about
    is_whole: bool  # whether the rotation ends with this comparison
    open_questions: int  # of the table, not yet answered: of the rotation, or of images that came late
    unanswered_for: timedelta | None  # how long ago the oldest of them was asked; None if none is open

    @property
    def is_answered(self) -> bool:
        """Whether everything that has been in question so far is answered."""
        return self.has_ended and not self.open_questions

    def has_found(self, run: int) -> bool:
        """Whether every row that was gone by run `run` has its tombstone, if the star held it when the rotation began."""
        return self.since >= run and self.is_whole and self.is_answered


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question that is not answered, or of whose answer a batch is not loaded."""

    id: UUID  # of the command starlift.look_up_keys
    table: str  # of the warehouse
    answered_by: int | None  # the run whose last batch, which names the question, is loaded; None: none is


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The last run that looked a row up and did not find it, and the source's clock."""

    run: int
    found_at: datetime


async def loaded_runs(warehouse: asyncpg.Connection, contract: Contract, source_name: str, since: int) -> dict[int, LoadedRun]:
    """What is loaded of each run from `since` on, by run; nothing before the first load."""
    if not await _exists(warehouse, contract, LEDGER):
        return {}
    rows = await warehouse.fetch(contract.own(RUNS), source_name, since)
    return {row["run"]: LoadedRun(row["run"], frozenset(row["batches"]), row["is_complete"]) for row in rows}


async def is_complete(warehouse: asyncpg.Connection, contract: Contract, source_name: str, run: int) -> bool:
    """Whether every batch of a run is loaded."""
    return bool(
        await warehouse.fetchval(contract.own(f"SELECT is_complete FROM ({RUNS}) AS r WHERE run = $2"), source_name, run)
    )


async def has_every_batch(warehouse: asyncpg.Connection, contract: Contract, source_name: str, run: int) -> bool:
    """Whether every batch of a run is in the star, although its bulk load may not have ended."""
    return bool(await warehouse.fetchval(contract.own(_HAS_EVERY_BATCH), source_name, run))


async def is_earlier_run_loading(
    warehouse: asyncpg.Connection, contract: Contract, source_name: str, run: int, within: timedelta
) -> bool:
    """Whether a run before `run` is incomplete and has loaded a batch `within` the last minutes, by the warehouse's clock."""
    return bool(await warehouse.fetchval(contract.own(_EARLIER_RUN), source_name, run, within))


async def loaded_batches(
    warehouse: asyncpg.Connection, contract: Contract, wanted: Collection[UUID] | None = None
) -> set[UUID]:
    """The batches that are loaded: those of `wanted`, or all."""
    if not await _exists(warehouse, contract, LEDGER):
        return set()
    return {row["batch_id"] for row in await warehouse.fetch(contract.own(BATCHES), None if wanted is None else list(wanted))}


async def loaded_events(warehouse: asyncpg.Connection, contract: Contract, batches: Sequence[UUID]) -> dict[UUID, LoadedEvent]:
    """The records of those of `batches` that are loaded. Raises: DamagedDocumentError."""
    if not await _exists(warehouse, contract, LEDGER):
        return {}
    found: dict[UUID, LoadedEvent] = {}
    query = f"SELECT batch_id, event, loaded_at FROM {contract.own(LEDGER)} WHERE batch_id = ANY ($1::uuid[])"
    for row in await warehouse.fetch(query, batches):
        place = f"{contract.own(LEDGER)}, batch_id = {row['batch_id']}"
        remedy = "delete that row of the warehouse, then run `starlift resend`, which loads the batch again"
        event = read_stored(decode, place, row["event"], what="event", remedy=remedy)
        if isinstance(event, BatchLoaded):
            found[row["batch_id"]] = LoadedEvent(event, row["loaded_at"])
    return found


async def run_count(warehouse: asyncpg.Connection, contract: Contract) -> int:
    """How many runs have loaded a batch."""
    return int(await warehouse.fetchval(f"SELECT count(DISTINCT run) FROM {contract.own(LEDGER)}"))


async def row_count(warehouse: asyncpg.Connection, contract: Contract, run: int) -> int:
    """How many rows the batches of a run have loaded."""
    return int(await warehouse.fetchval(contract.own(_ROW_COUNT), run))


async def other_source(warehouse: asyncpg.Connection, contract: Contract, source_name: str) -> str | None:
    """Another source that has loaded into a table of `source_name`."""
    names = [table.name for table in contract.part(source_name).remodelled_tables]
    return cast("str | None", await warehouse.fetchval(contract.own(_OTHER_SOURCE), source_name, names))


async def horizons(warehouse: asyncpg.Connection, contract: Contract, source_name: str, runs: Iterable[int]) -> dict[int, int]:
    """The horizons of those of `runs` that have loaded a batch."""
    rows = await warehouse.fetch(contract.own(_HORIZONS), source_name, list(runs))
    return {row["run"]: row["horizon"] for row in rows}


async def batches_without_refusals(
    warehouse: asyncpg.Connection, contract: Contract, source_name: str, runs: Collection[int]
) -> set[tuple[int, int]]:
    """The batches of `runs`, as pairs of run and index, that had no row refused when they were loaded last."""
    if not runs or not await _exists(warehouse, contract, LEDGER):
        return set()
    return {
        (row["run"], row["batch_index"])
        for row in await warehouse.fetch(contract.own(_WITHOUT_REFUSALS), source_name, list(runs))
    }


async def last_comparisons(warehouse: asyncpg.Connection, contract: Contract) -> dict[str, KeyComparison]:
    """The last key comparison of each table that has one, by table; if the contract is one source's part, of its tables."""
    if not await warehouse.fetchval(HAS_SINCE, contract.own(COMPARISON)):
        return {}  # loaded by a version that did not compare, or did not say since when
    found = await warehouse.fetch(contract.own(COMPARISONS), _tables_of_part(contract))
    return {name: KeyComparison(*values) for name, *values in found}


async def open_questions(warehouse: asyncpg.Connection, contract: Contract) -> list[OpenQuestion]:
    """Every open question about rows that may be gone; if the contract is one source's part, of its tables."""
    if not (await _exists(warehouse, contract, QUESTION) and await _exists(warehouse, contract, COMPARISON)):
        return []
    return [OpenQuestion(*values) for values in await warehouse.fetch(contract.own(OPEN_QUESTIONS), _tables_of_part(contract))]


def _tables_of_part(contract: Contract) -> list[str] | None:
    """The star tables of one source's part; None for a whole contract, and for all that the warehouse has."""
    return None if contract.whole is None else [table.name for table in contract.remodelled_tables]


async def find_tombstone(
    warehouse: asyncpg.Connection, contract: Contract, table: WarehouseTable, key: Iterable[object]
) -> Tombstone | None:
    """The tombstone of a business key, a whole number or a text for each column; None if the row was never found gone."""
    if not await _exists(warehouse, contract, TOMBSTONE):
        return None
    columns = ", ".join(key_parameter(table, position, first=2) for position in range(len(table.key)))
    query = f"SELECT run, found_at FROM {contract.own(TOMBSTONE)} WHERE table_name = $1 AND key = jsonb_build_array({columns})"
    row = await warehouse.fetchrow(query, table.name, *map(str, key))
    return None if row is None else Tombstone(row["run"], row["found_at"])


def key_parameter(table: WarehouseTable, position: int, *, first: int = 1) -> str:
    """A column of the key as a parameter, given as a text."""
    return f"${first + position}::text::{table.column(table.key[position]).type.unbounded_sql}"


async def applied_contracts(warehouse: asyncpg.Connection, contract: Contract) -> dict[str, str]:
    """The fingerprint of each contract that the star was made to follow, by name; nothing before the first load."""
    if not await _exists(warehouse, contract, APPLIED_CONTRACT):
        return {}
    rows = await warehouse.fetch(f"SELECT name, fingerprint FROM {contract.own(APPLIED_CONTRACT)}")
    return {row["name"]: row["fingerprint"] for row in rows}


async def _exists(warehouse: asyncpg.Connection, contract: Contract, table: str) -> bool:
    """Whether a table of the loader exists: it creates them when it first starts."""
    return bool(await warehouse.fetchval("SELECT to_regclass($1) IS NOT NULL", contract.own(table)))
