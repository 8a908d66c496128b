"""Any contract, rows, changes and order of loads end EQUAL to the source, and to a SELECT that was written with the contract.

The same examples each time. `make properties EXAMPLES=1000` tries that many new ones; `--hypothesis-seed` repeats them, and a
failure prints the contract, the statements and the runs. tests/fixtures/random_contracts.py draws them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given, note

from contracts.column_types import Kind
from contracts.contract import Contract
from contracts.messages import BatchRemodelled, LookUpKeys, Mode
from contracts.proofs import Outcome
from contracts.tables import Calendar, Column, Dimension, Fact, RemodelledTable
from contracts.warehouse import as_of_name, current_name, history_name
from contracts.yaml_text import read_contract
from infra.local.databases import LOADER, READER, SOURCE_OWNER, execute
from services.ingestion.source import BatchLimits
from services.operator.proof.history import check_history
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Mismatch
from services.operator.proof.verdict import Scope
from shared.postgres import SESSION_SETTINGS
from shared.sql import quoted
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.properties import examples
from tests.fixtures.random_contracts import SCHEMAS, Case, Run, cases
from tests.fixtures.random_source import KINDS, prepared
from tests.integration.plain_star import keys_in_quarantine

Keys = dict[str, list[tuple[object, ...]]]
# By kind, two values that fit into every type of the kind.
OTHERS = {
    **dict.fromkeys((Kind.INTEGER, Kind.BIGINT), ("1", "2")),
    Kind.NUMERIC: ("0.1", "0.2"),
    **dict.fromkeys((Kind.TEXT, Kind.ENUM), ("x", "y")),
    Kind.BOOLEAN: ("true", "false"),
    Kind.TIME: ("01:00", "02:00"),
    **dict.fromkeys((Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ), ("2001-01-01", "2001-01-02")),
}
VERBATIM = {kind.document or kind.sql: kind.values for kind in KINDS.values()}


@dataclass(frozen=True)
class Databases:
    """A source and a warehouse, which each example leaves empty."""

    source: str  # the URLs: of its reader
    owner: str
    warehouse: str


@pytest.fixture(scope="module")
def databases(postgres_cluster: TestCluster) -> Iterator[Databases]:
    source, warehouse = postgres_cluster.create_database(), postgres_cluster.create_warehouse()
    url = postgres_cluster.url
    execute(url(source, SOURCE_OWNER), *prepared(SCHEMAS, READER))
    yield Databases(url(source, READER), url(source, SOURCE_OWNER), url(warehouse, LOADER))
    postgres_cluster.drop_database(source)
    postgres_cluster.drop_database(warehouse)


@dataclass(frozen=True)
class Application:
    """Two sessions of the source's owner; what breaks a constraint, or waits for the other, changes nothing."""

    session: asyncpg.Connection
    late: asyncpg.Connection

    async def execute(self, statement: str) -> None:
        with suppress(asyncpg.IntegrityConstraintViolationError, asyncpg.LockNotAvailableError):
            await self.session.execute(statement)

    async def open(self, statement: str) -> None:
        """Execute a statement in a transaction that stays open."""
        await self.late.execute("BEGIN")
        try:
            await self.late.execute(statement)
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.LockNotAvailableError):
            await self.late.execute("ROLLBACK")

    async def commit(self) -> None:
        with suppress(asyncpg.IntegrityConstraintViolationError):
            await self.late.execute("COMMIT")


@asynccontextmanager
async def opened(databases: Databases, case: Case) -> AsyncIterator[tuple[Application, Pipeline]]:
    """The application and the pipeline of a case."""
    options = {**SESSION_SETTINGS, "lock_timeout": "30ms"}
    sessions = [await asyncpg.connect(databases.owner, server_settings=options) for _ in range(2)]
    contract = read_contract(case.contract, "random.yaml")
    limits = BatchLimits(rows=case.batch_rows, bundle_rows=case.batch_rows // 2)
    async with open_pipeline(databases.source, databases.warehouse, contract=contract, limits=limits, few_rows=2) as pipeline:
        try:
            for statement in case.definitions:
                await sessions[0].execute(statement)
            yield Application(*sessions), pipeline
        finally:
            await sessions[1].close()
            await sessions[0].execute(f"DROP TABLE IF EXISTS {', '.join(case.tables)} CASCADE")
            await sessions[0].close()
            left = "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE schemaname = $1"
            for (table,) in await pipeline.select(left, contract.warehouse_schema):
                await pipeline.select(f"DROP TABLE {table} CASCADE")
            await pipeline.select("DROP SCHEMA IF EXISTS starlift CASCADE")


async def read(application: Application, pipeline: Pipeline, runs: Sequence[Run]) -> list[BatchRemodelled]:
    """The batches of every run, and of a last one that reads all deletes."""
    messages = []
    for run in runs:
        for statement in run.changes:
            await application.execute(statement)
        if run.late is not None:
            await application.open(run.late)
        mode = Mode.FULL if run.is_full else Mode.CHANGES
        messages += await pipeline.read(mode, compare_keys=run.compares_keys)
        await application.commit()
    return messages + await pipeline.read(compare_keys=True, believe_empty=True)


async def load(pipeline: Pipeline, messages: Sequence[BatchRemodelled], order: Sequence[int]) -> None:
    """Load every batch, in the order of the numbers and some of them again, then answer every question."""
    left, questions = list(messages), list[LookUpKeys]()
    for number in order:
        message = messages[number % len(messages)]
        questions += await pipeline.load(message)
        left = [one for one in left if one is not message]
    await pipeline.settle(questions + await pipeline.load(*left))


async def require_equal(pipeline: Pipeline) -> None:
    """The proof finds the star equal; of tables that every run reads in full, after a run that began after its look."""
    has_looked = asyncio.Event()

    async def work() -> None:
        await has_looked.wait()
        await pipeline.run()

    if any(table.full for table in pipeline.contract.source_tables):
        scope = Scope(settle=timedelta(seconds=60))
        verdict, _ = await asyncio.gather(pipeline.verify(scope, on_table=lambda _: has_looked.set()), work())
    else:
        verdict = await pipeline.verify()
    assert [difference for table in verdict.tables for difference in table.differences] == []
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 0), verdict.sentence


def living(contract: Contract, table: RemodelledTable) -> str:
    """The rows of a table that the source has, as SQL."""
    name = current_name(table.name) if isinstance(table, Fact) else table.name
    return f"{quoted(contract.warehouse_schema, name)} WHERE _run > 0 AND _deleted_at IS NULL"


def text_of(table: RemodelledTable, name: str) -> str:
    """A column as a text. A numeric has no zeros at its end, since a key may be 7.5 or 7.50, whichever came first."""
    return f"trim_scale({quoted(name)})::text" if table.column(name).type.is_decimal else f"{quoted(name)}::text"


async def require_as_remembered(pipeline: Pipeline) -> None:
    """The history of each dimension ends with its living rows, and each fact is shown once as of its time."""
    contract = pipeline.contract
    for table in contract.remodelled_tables:
        texts = ", ".join(f"{quoted(column.name)}::text" for column in table.columns)
        if isinstance(table, Dimension) and table.history:
            shown = f"{quoted(contract.warehouse_schema, history_name(table.name))} WHERE is_current"
        elif isinstance(table, Fact) and table.as_of:
            shown = quoted(contract.warehouse_schema, as_of_name(table.name))
        else:
            continue
        found, expected = [await pipeline.select(f"SELECT {texts} FROM {one}") for one in (shown, living(contract, table))]
        assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert [fact.problems for fact in (await check_history(pipeline.system)).facts if fact.flawed] == []


async def require_as_selected(application: Application, pipeline: Pipeline, case: Case, refused: Keys) -> None:
    """Every table of the star holds what its SELECT finds at the source, apart from the rows in quarantine."""
    for table in pipeline.contract.remodelled_tables:
        keys, row_id = refused.get(table.name, []), pipeline.contract.source_table(table.source).row_id
        if row_id is not None and keys:
            continue  # rows without a key can't be left out
        columns = [[str(key[place]) for key in keys] for place in range(0 if row_id else len(table.key))]
        expected = [tuple(row) for row in await application.session.fetch(case.selects[table.name], *columns)]
        names = [column.name for column in table.columns]
        texts = ", ".join("''" if row_id and name in table.key else text_of(table, name) for name in names)
        key = ", ".join(text_of(table, name) for name in table.key)
        excluded = ", ".join(f"${place}::text[]" for place in range(1, len(columns) + 1)) or "'{}'::text[]"
        async with pipeline.warehouse.transaction(readonly=True) as connection:
            rows = f"{living(pipeline.contract, table)} AND ({key}) NOT IN (SELECT * FROM unnest({excluded}))"
            held = await connection.fetch(f"SELECT {texts} FROM {rows}", *columns)
        got, wanted = sorted(map(repr, map(tuple, held))), sorted(map(repr, expected))
        assert got == wanted, (table.name, got, wanted)


async def tamper(pipeline: Pipeline, case: Case, refused: Keys) -> tuple[str, tuple[object, ...], str | None] | None:
    """Change a cell of the star, or mark its row as deleted; return the table, the row's key and the column."""
    found = []
    async with pipeline.warehouse.transaction() as connection:
        for table in pipeline.contract.remodelled_tables:
            identity = ", ".join(text_of(table, name) for name in table.identity)
            rows = await connection.fetch(f"SELECT {identity} FROM {living(pipeline.contract, table)} ORDER BY {identity}")
            excused = [tuple(map(str, key)) for key in refused.get(table.name, [])]
            found += [(table, tuple(row)) for row in rows if tuple(row)[: len(table.key)] not in excused]
        if not found:
            return None
        table, row = found[case.tampering.row % len(found)]
        columns = [column for column in table.columns if column.name not in table.identity and column.references is None]
        relation = quoted(pipeline.contract.warehouse_schema, table.name)
        same = " AND ".join(f"{text_of(table, name)} = ${place}" for place, name in enumerate(table.identity, 1))
        column = columns[case.tampering.column % len(columns)] if columns and not case.tampering.marks_deleted else None
        change = "_deleted_at = now()" if column is None else _other(column)
        if await connection.execute(f"UPDATE {relation} SET {change} WHERE {same}", *row) != "UPDATE 1":
            raise AssertionError(f"no row {row} in {table.name}")
        return table.name, row[: len(table.key)], column.name if column else None


def _other(column: Column) -> str:
    """The assignment of another value."""
    name = quoted(column.name)
    values = OTHERS.get(column.type.kind) or VERBATIM[column.type.family]
    one, other = (f"'{value}'::{column.type.sql}" for value in (values[0], values[-1]))
    return f"{name} = CASE WHEN {name}::text = ({one})::text THEN {other} ELSE {one} END"


def is_full(contract: Contract, name: str) -> bool:
    """Whether every run reads all rows that a table is made of, so that none is known to be unchanged."""
    table = contract.warehouse_table(name)
    assert not isinstance(table, Calendar)
    return any(contract.source_table(one).full for one in (table.source, *(lookup.table for lookup in table.lookups)))


async def orphans(application: Application, contract: Contract, case: Case, name: str) -> list[tuple[str, ...]]:
    """The keys of a table's rows that lack a partner: each comparison of keys reads them again."""
    table = contract.warehouse_table(name)
    assert not isinstance(table, Calendar)
    queries = [case.orphans[name][lookup.name] for lookup in table.lookups]
    return [tuple(row) for query in queries for row in await application.session.fetch(query)]


async def play(databases: Databases, case: Case) -> None:
    async with opened(databases, case) as (application, pipeline):
        await load(pipeline, await read(application, pipeline, case.runs), case.order)
        await require_equal(pipeline)
        refused = await keys_in_quarantine(pipeline)
        await require_as_remembered(pipeline)
        await require_as_selected(application, pipeline, case, refused)
        if (tampered := await tamper(pipeline, case, refused)) is None:
            return
        name, key, column = tampered
        verdict = await pipeline.verify()
        found = [(table.table, *_named(one)) for table in verdict.tables for one in table.differences]
        table = pipeline.contract.warehouse_table(name)
        if is_full(pipeline.contract, name) or key in await orphans(application, pipeline.contract, case, name):
            has_history = isinstance(table, Dimension) and table.history  # the newest version, which no row waits for, differs
            named = [(name, key)] if has_history else []
            assert [one[:1] + one[2:3] for one in found] == named, (found, tampered)
            assert verdict.in_flight + verdict.stuck >= 1
            await pipeline.run(compare_keys=True)
        else:
            kind = Mismatch.DIFFERENT if column else Mismatch.MISSING
            assert found == [(name, kind, key, [column] if column else [])], (found, tampered)
            assert verdict.outcome is Outcome.DIFFERENT
            (wish,) = await plan_repair(pipeline.system, verdict)
            await pipeline.run(reread=wish.reread)
        await require_equal(pipeline)
        await require_as_selected(application, pipeline, case, refused)


def _named(difference: Any) -> tuple[Mismatch, tuple[str, ...], list[str]]:
    return difference.kind, tuple(map(str, difference.key)), list(difference.columns)


def test_any_contract_rows_changes_and_order_end_equal_and_a_changed_cell_is_found(databases: Databases) -> None:
    @given(cases())
    @examples(25)
    def holds(case: Case) -> None:
        note(str(case))
        asyncio.run(play(databases, case))

    holds()
