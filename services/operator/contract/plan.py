"""What a contract would do before it does anything: every problem, what a first run reads, what the warehouse becomes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import asyncpg
from pydantic import BaseModel, SecretStr

from contracts.contract import Contract
from contracts.tables import Dimension, SourceTable
from contracts.yaml_text import ContractTextError
from services.operator.contract.delivered import notes_on_delivered
from services.operator.errors import OperatorError, UsageError
from shared.catalog import SNAPSHOT_QUERY, find_tables, key_problem, source_problems, table_facts
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.ledger import applied_contracts
from shared.postgres import Database
from shared.source_fit import WITHOUT_VERSIONS, FoundTable
from shared.sql import quoted
from shared.star_schema.evolution import obstacles
from shared.star_schema.own_tables import own_changes
from shared.star_schema.preview import Action, Effect, effects
from shared.star_schema.star import no_star, read_star
from shared.warehouse_fit import missing_privileges, missing_types, names_taken, retired_tables

VERSION_MINIMUM = 13  # pg_current_snapshot()
ROWS_PER_SECOND = 74_000  # of a first load, as `make bench` measures it on two cores (README, "How fast")
UNKNOWN_ROW_BYTES = 100  # of a table that was never analysed
LOCK_LIMIT = timedelta(seconds=3)  # reading waits while another session alters a table, of the source or of the star

_STANDBY = """
SELECT current_setting('max_standby_streaming_delay')
WHERE pg_is_in_recovery() AND NOT current_setting('hot_standby_feedback')::boolean
"""
_Part = Literal["contract", "source", "warehouse"]


class Problem(BaseModel, frozen=True):
    """Something that keeps the contract from working."""

    part: _Part
    text: str  # what is wrong, and what to do
    file: str | None = None  # of a contract
    line: int | None = None
    is_unreachable: bool = False  # of a database: nothing else is known about it

    def __str__(self) -> str:
        """As a person reads it."""
        return self.text if self.file is None else f"{self.file}:{self.line}: {self.text}"


class TableRead(BaseModel, frozen=True):
    """What a first run reads of a table of the source, as the source's statistics estimate it."""

    table: str
    rows: int
    bytes: int
    seconds: float  # at ROWS_PER_SECOND
    is_analysed: bool  # if not, the rows are guessed from the bytes
    in_full_every_run: bool  # no run can tell which rows have changed
    why_in_full: str | None = None
    new_columns: Mapping[str, str]  # name and type of columns that the contract does not know; they stay in the source


class Change(BaseModel, frozen=True):
    """What becomes of an object of the warehouse."""

    action: Action
    kind: str
    name: str
    detail: str


class Plan(BaseModel, frozen=True):
    """What a contract would do."""

    contract: str
    problems: tuple[Problem, ...] = ()
    reads: tuple[TableRead, ...] = ()  # none without a source
    rows_per_second: int = ROWS_PER_SECOND  # on which the seconds are based
    changes: tuple[Change, ...] = ()  # without a warehouse: as if it were empty
    notes: tuple[str, ...] = ()  # what works and is better known

    @property
    def has_changes(self) -> bool:
        """Whether the warehouse would change."""
        return any(change.action is not Action.KEEP for change in self.changes)


class _Report(BaseModel, frozen=True):
    """What one of the databases adds to a plan."""

    problems: tuple[str, ...] = ()
    reads: tuple[TableRead, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()


def plan_of_mistakes(name: str, error: ContractTextError) -> Plan:
    """The plan of a document that is not a contract."""
    file = Path(name).name
    return Plan(
        contract=name,
        problems=tuple(Problem(part="contract", text=text, file=file, line=line) for line, text in error.problems),
    )


async def make_plan(
    contract: Contract,
    source: SecretStr | None,
    warehouse: SecretStr | None,
    others: Mapping[str, SecretStr | None] = MappingProxyType({}),
) -> Plan:
    """Compare a contract with the databases of these URLs and change nothing; `others` are the sources besides `source`."""
    problems, reports = list[Problem](), list[_Report]()
    main = [name for name in contract.sources or [""] if name not in others and not contract.is_delivered(name)]
    notes = tuple(notes_on_delivered(contract, is_url_unused=source is not None and not main))
    looks: list[tuple[_Part, str, Callable[[], Awaitable[_Report]]]] = []
    for name, url in {**dict.fromkeys(main[:1], source), **others}.items():
        if url is not None:
            looks.append(("source", f"{name}: " if name else "", partial(_source, url, contract.part(name))))
    if warehouse is not None:
        looks.append(("warehouse", "", partial(_warehouse, warehouse, contract)))
    for part, prefix, look in looks:
        try:
            report = await look()
        except (DependencyDownError, PermanentError, TransientError) as error:
            problems.append(Problem(part=part, text=f"{prefix}{error}", is_unreachable=isinstance(error, DependencyDownError)))
        else:
            problems += [Problem(part=part, text=f"{prefix}{text}") for text in report.problems]
            reports.append(report)
    if warehouse is None:
        schemas = {contract.ledger_schema, contract.warehouse_schema} - {"public"}  # which every database has
        new = [*map(_new_schema, sorted(schemas)), *effects(contract, no_star(contract))]
        reports.append(_Report(changes=_changes(new)))
    return Plan(
        contract=contract.name,
        problems=tuple(problems),
        reads=tuple(table for report in reports for table in report.reads),
        changes=tuple(change for report in reports for change in report.changes),
        notes=(*notes, *(note for report in reports for note in report.notes)),
    )


def require_possible(plan: Plan) -> None:
    """Raises: UsageError with every problem; OperatorError if databases can't be reached and nothing else is known."""
    if not plan.problems:
        return
    error = OperatorError if all(problem.is_unreachable for problem in plan.problems) else UsageError
    if len(plan.problems) == 1:
        raise error(str(plan.problems[0]))
    raise error("\n  ".join([f"{len(plan.problems)} problems:", *(f"{one.part}: {one}" for one in plan.problems)]))


async def _source(url: SecretStr, contract: Contract) -> _Report:
    async with (
        aclosing(Database("source", url, connections=1)) as database,
        database.transaction(isolation="repeatable_read", readonly=True) as connection,
    ):
        if old := _too_old("source", connection):
            return _Report(problems=(old,))
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_LIMIT.seconds}s'")
        await connection.fetchrow(SNAPSHOT_QUERY)  # a run begins with it, and some servers refuse it
        found = await find_tables(connection, contract)
        patience = await connection.fetchval(_STANDBY)
        note = (
            "the source is a standby that cancels a run if its primary removes rows that the run still reads, after "
            f"max_standby_streaming_delay = {patience}; set hot_standby_feedback = on there, or a longer delay"
        )
        problems = await source_problems(connection, contract, found)
        tables = [table for table in contract.source_tables if table.name in found]
        if not problems:
            keys = [await key_problem(connection, contract, table) for table in tables]
            problems = [problem for problem in keys if problem is not None]
            found = {table.name: await _measured(connection, contract, table, found[table.name]) for table in tables}
        reads = tuple(_read(table, found[table.name]) for table in tables)
        return _Report(
            problems=tuple(problems),
            reads=reads,
            notes=(*(() if patience is None else (note,)), *_notes_on_history(contract, reads)),
        )


def _notes_on_history(contract: Contract, reads: Iterable[TableRead]) -> Iterator[str]:
    in_full = {one.table: one.why_in_full for one in reads if one.in_full_every_run}
    for table in contract.warehouse_tables:
        if isinstance(table, Dimension) and table.versions is not None:
            for source in sorted(in_full.keys() & {table.source, *(lookup.table for lookup in table.lookups)}):
                yield (
                    f"every run adds a row to '{table.versions.name}' for each row of '{table.source}', since it reads all of "
                    f"'{source}' ({in_full[source]}): correct that, or leave `history` out"
                )


async def _measured(connection: asyncpg.Connection, contract: Contract, table: SourceTable, found: FoundTable) -> FoundTable:
    """A view with its size as the planner estimates it: it has no statistics of its own."""
    if found.bytes or found.kind not in WITHOUT_VERSIONS:
        return found
    columns = ", ".join(quoted(column.name) for column in table.stored_columns)
    query = f"SELECT {columns} FROM {quoted(*contract.relation_of(table))}"
    (explained,) = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {query}"))
    rows = explained["Plan"]["Plan Rows"]
    return replace(found, estimated_rows=rows, bytes=rows * explained["Plan"]["Plan Width"])


def _why_in_full(table: SourceTable, found: FoundTable) -> str | None:
    if kind := WITHOUT_VERSIONS.get(found.kind):
        return kind
    if table.full:
        return "no key" if table.row_id else "no index on its key"
    return None if found.has_row_versions else "xmin can't be read"


def _read(table: SourceTable, found: FoundTable) -> TableRead:
    facts = table_facts(table, found)
    rows = found.estimated_rows or found.bytes // UNKNOWN_ROW_BYTES
    return TableRead(
        table=table.name,
        rows=rows,
        bytes=found.bytes,
        seconds=round(rows / ROWS_PER_SECOND, 1),
        is_analysed=found.estimated_rows > 0,
        in_full_every_run=not facts.has_row_versions,
        why_in_full=_why_in_full(table, found),
        new_columns=facts.new_columns,
    )


async def _warehouse(url: SecretStr, contract: Contract) -> _Report:
    async with aclosing(Database("warehouse", url, connections=1, writes=True)) as database:
        await database.probe()  # not one that is read-only
        async with database.transaction() as connection:
            return await _look(connection, contract)


async def _look(connection: asyncpg.Connection, contract: Contract) -> _Report:
    if old := _too_old("warehouse", connection):
        return _Report(problems=(old,))
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_LIMIT.seconds}s'")
    applied = await applied_contracts(connection, contract)
    problems = [
        *await missing_privileges(connection, contract),
        *await names_taken(connection, contract, applied),
    ]
    types = await missing_types(connection, contract)
    if problems:
        return _Report(problems=(*problems, *types))
    attempt = connection.transaction()
    await attempt.start()
    try:
        star = await read_star(connection, contract)  # creates views, to read PostgreSQL's text of them
    finally:
        await attempt.rollback()
    around = await _around_the_star(connection, contract, applied)
    return _Report(
        problems=(*types, *obstacles(contract, star)),
        changes=_changes([*around, *effects(contract, star)]),
    )


async def _around_the_star(connection: asyncpg.Connection, contract: Contract, applied: Mapping[str, str]) -> list[Effect]:
    """What changes besides the star's tables, and tables that the contract no longer has."""
    found = []
    own = contract.ledger_schema
    for change in await own_changes(connection, contract):
        is_new = not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", quoted(own))
        found.append(_new_schema(own) if is_new else Effect(Action.CHANGE, "schema", own, change.subject))
    if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", quoted(contract.warehouse_schema)):
        found.append(_new_schema(contract.warehouse_schema))
    if applied.get(contract.name, contract.fingerprint) != contract.fingerprint:
        marks = " and marks the rows that `where` rejects" if any(table.where for table in contract.remodelled_tables) else ""
        detail = f"the next run reads every table in full{marks}"
        found.append(Effect(Action.CHANGE, "contract", contract.name, detail))
    reason = "not in the contract: its rows stay as they are"
    retired = await retired_tables(connection, contract)
    return [*found, *(Effect(Action.KEEP, "table", f"{contract.warehouse_schema}.{name}", reason) for name in retired)]


def _new_schema(name: str) -> Effect:
    return Effect(Action.CREATE, "schema", name)


def _changes(found: Iterable[Effect]) -> tuple[Change, ...]:
    return tuple(Change(action=one.action, kind=one.kind, name=one.name, detail=one.detail) for one in found)


def _too_old(name: str, connection: asyncpg.Connection) -> str | None:
    version = connection.get_server_version()
    if version.major >= VERSION_MINIMUM:
        return None
    return f"the {name} is PostgreSQL {version.major}; Starlift needs {VERSION_MINIMUM} or newer"
