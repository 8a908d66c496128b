"""What was delivered of data sets, as temporary tables in a separate session of the warehouse.

So the SQL that is made for a source database (expected.py) also says what a star of data sets should hold. Which of several
rows with one key counts is decided here by SQL, on purpose: ingestion decides it in shared/landed.py, and a mistake there would
otherwise be on both sides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg

from contracts.column_types import TEXT
from contracts.contract import Contract
from contracts.tables import SourceTable
from contracts.warehouse import LEDGER
from services.operator.progress import Progress
from services.operator.proof.causes import lost_manifest_cause
from services.operator.proof.expected import run_column
from services.operator.proof.row_comparison import Cause, Wait
from services.operator.system import System
from shared.codecs import codec_of
from shared.errors import PermanentError
from shared.ledger import loaded_runs
from shared.reading import in_order
from shared.source_keys import Key
from shared.sql import quoted

if TYPE_CHECKING:
    import pandas as pd  # half a second for every command

    from shared.landed import Truth

TEMPORARY = "pg_temp"  # PostgreSQL's name for the schema of a session's temporary tables
_STAGING = "starlift delivered"  # the name of no data set: none has a blank
_LANDED = f"""
SELECT batch_id, run, ARRAY(SELECT jsonb_array_elements_text(event -> 'data' -> 'landed')) AS landed
FROM {LEDGER} WHERE source_name = $1 AND run >= $2 AND jsonb_array_length(event -> 'data' -> 'landed') > 0
"""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was delivered of the data sets of a source, in temporary tables."""

    connection: asyncpg.Connection
    contract: Contract  # the source's part, whose source tables are these tables
    since: Mapping[str, int]  # by data set, the run with which its truth begins
    runs: Mapping[int, frozenset[str]]  # the runs that have a manifest, with the hashes of their extracts
    until: datetime | None  # when the last of them that took a delivery read it; None if none has


@asynccontextmanager
async def open_delivered(system: System, only: Mapping[str, Collection[Key]] | None = None) -> AsyncIterator[Delivered]:
    """Fill the tables with what has been delivered so far; `only` with the rows of these keys, by data set.

    Raises: DependencyDownError, TransientError; PermanentError, also if a manifest or an extract is missing or was changed.
    """
    from shared.landed import truth_of  # noqa: PLC0415 (pandas: half a second for every command)

    store, checkpoint = system.store, await system.store.find_checkpoint()
    tables = tuple(replace(table, schema=TEMPORARY, relation=None) for table in system.contract.source_tables)
    contract = replace(system.contract, source_tables=tables)
    truths = {table.name: truth_of(store, contract, table, checkpoint) for table in tables}
    since = {name: truth.whole_run or 1 for name, truth in truths.items()}
    runs, until = dict[int, frozenset[str]](), None
    if only is None:
        numbers = await store.manifest_runs(after=min(since.values()) - 1)
        async for run, manifest in in_order(numbers, store.read_manifest):
            runs[run] = frozenset(one.object.sha256 for batch in manifest.batches for one in batch.data.extracts)
            until = manifest.snapshot.taken_at if manifest.batches else until
    async with system.warehouse.transaction() as connection:
        for name, truth in truths.items():
            await _fill(connection, truth, None if only is None else only.get(name, ()))
        yield Delivered(connection, contract, since, runs, until)


@asynccontextmanager
async def open_tables(
    system: System, only: Mapping[str, Collection[Key]] | None = None
) -> AsyncIterator[tuple[asyncpg.Connection, Contract]]:
    """A session that sees the tables of a source, and the contract that says where they are; for data sets `open_delivered`."""
    if system.source is None:
        async with open_delivered(system, only) as delivered:
            yield delivered.connection, delivered.contract
    else:
        async with system.source.transaction(isolation="repeatable_read", readonly=True) as connection:
            yield connection, system.contract


@contextmanager
def _explained() -> Iterator[None]:
    """Around what creates the first temporary table."""
    what = "a proof of data sets needs temporary tables in the warehouse for what was delivered, and"
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        advice = "run the SQL of `starlift grants warehouse` again, or GRANT TEMPORARY ON DATABASE to the role"
        raise PermanentError(f"{what} the role of this command may not create any; {advice}") from error
    except asyncpg.ReadOnlySQLTransactionError as error:
        advice = "point STARLIFT_WAREHOUSE_URL at the primary, and let the role's transactions write"
        raise PermanentError(f"{what} its transactions are read-only here; {advice}") from error


async def _fill(connection: asyncpg.Connection, truth: Truth, only: Collection[Key] | None) -> None:
    """Make the table of a data set: copy every row that was delivered, and keep the newest of each key."""
    table, columns = truth.table, [truth.table.defect, *(column.name for column in truth.table.columns)]
    types = {name: table.extract_types[name] for name in columns}
    runs = _whole_run_column(table), run_column(table)
    staged = ", ".join(
        [
            *(f"{quoted(name)} {codec_of(kind).staged}" for name, kind in types.items()),
            *(f"{quoted(name)} bigint" for name in runs),
        ]
    )
    with _explained():
        await connection.execute(f"CREATE TEMPORARY TABLE {quoted(_STAGING)} ({staged}) ON COMMIT DROP")
    if only is None:
        async for landed in truth.rows():
            await _copy(connection, table, landed.frame, landed.extract.whole_run or 0, landed.run)
    elif only:
        await _copy(connection, table, await truth.rows_of(only), 0, 0)
    values = [f"{codec_of(kind).loaded(quoted(name))} AS {quoted(name)}" for name, kind in types.items()]
    key = ", ".join(codec_of(table.column(name).type).loaded(quoted(name)) for name in table.key)
    version = table.dataset.version if table.dataset is not None else None
    newest = [runs[0], *([version] if version else []), runs[1]]
    order = ", ".join(f"s.{quoted(name)} DESC NULLS LAST" for name in newest)
    await connection.execute(
        f"CREATE TEMPORARY TABLE {quoted(table.name)} ON COMMIT DROP AS SELECT DISTINCT ON ({key}) {', '.join(values)}, "
        f"{quoted(runs[1])} FROM {quoted(_STAGING)} AS s ORDER BY {key}, {order}"
    )
    await connection.execute(f"DROP TABLE {quoted(_STAGING)}")
    await connection.execute(f"ANALYZE {quoted(TEMPORARY, table.name)}")


async def _copy(connection: asyncpg.Connection, table: SourceTable, rows: pd.DataFrame, *runs: int) -> None:
    from shared.binary_copy import binary_copy, copy_rows, staged_type  # noqa: PLC0415 (likewise)

    types = {table.defect: TEXT} | {column.name: staged_type(column.type) for column in table.columns}
    pieces = binary_copy(rows, types, [run.to_bytes(8) for run in runs])
    await copy_rows(connection, None, _STAGING, [*types, _whole_run_column(table), run_column(table)], pieces)


def _whole_run_column(table: SourceTable) -> str:
    return table.unlike_its_columns("_whole_run")


async def unproved_runs(
    system: System, warehouse: asyncpg.Connection, delivered: Delivered, progress: Progress
) -> dict[int, Cause]:
    """The runs that have loaded rows and have no manifest, with what these rows wait for.

    The last one may still be under way, or was killed before its manifest: the next run then brings the same rows again.

    Raises: PermanentError if a manifest was changed; DependencyDownError, TransientError.
    """
    store = system.store
    await _require_as_loaded(warehouse, delivered, store.source)
    loaded = await loaded_runs(warehouse, system.contract, store.source, min(delivered.since.values()))
    return {
        run: Cause(Wait.RUN) if run > progress.newest else lost_manifest_cause(run, store.keys.manifest(run))
        for run in sorted(loaded.keys() - delivered.runs.keys())
    }


async def _require_as_loaded(warehouse: asyncpg.Connection, delivered: Delivered, source: str) -> None:
    """Compare the manifests with what the ledger says was loaded. Raises: PermanentError if they differ."""
    rows = await warehouse.fetch(delivered.contract.own(_LANDED), source, min(delivered.since.values()))
    for batch_id, run, landed in rows:
        if run in delivered.runs and not delivered.runs[run].issuperset(landed):
            raise PermanentError(
                f"batch {batch_id} of run {run} was loaded from extracts that the run's manifest does not name, so the "
                "manifest has been changed; restore it, or deliver a whole snapshot"
            )
