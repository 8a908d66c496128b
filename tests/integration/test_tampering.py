"""A randomly tampered star is reported equal only if it is equal, and no tampering stops a proof.

STARLIFT_TAMPERINGS and STARLIFT_TAMPERING_SEED make it longer, or the same again: the seed of a failure is in its message.
"""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import asyncpg
import pytest

from contracts.column_types import ColumnType, Kind
from contracts.proofs import Outcome
from contracts.tables import Calendar, Fact, WarehouseTable
from infra.local.databases import LOADER
from shared.sql import literal, quoted
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import SCHEMA, SHOP

TAMPERINGS = int(os.environ.get("STARLIFT_TAMPERINGS", "30"))
SEED = int(os.environ.get("STARLIFT_TAMPERING_SEED", "1"))
ROWS = """
INSERT INTO maker VALUES (1, 'Ada', NULL, 1.50), (2, 'Bo', '', NULL), (3, 'Côte', 'Łódź', -0.01);
INSERT INTO item (item_id, maker_id, serial, price, code, note, good, born, opens, sold_at, mood, due, currency) VALUES
(1, 1, 9007199254740993, 1.2345, 'abc', '', true, '1815-12-10', '09:30', '2026-01-02 03:04:05.000006', 'calm', NULL, 'GBP'),
(2, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-03', 'wild', '2026-02-28', 'EUR'),
(3, NULL, 0, 0, '', E'a\\\\b', false, '0001-01-01', '00:00', '2026-01-02 03:04:05', NULL, '2026-01-02', NULL);
INSERT INTO shelf VALUES (1, 'a', 3), (1, 'b', 3), (2, 'a', 4);
"""
LATER = """
UPDATE item SET note = 'later', sold_at = '2026-01-04' WHERE item_id = 1;
INSERT INTO shelf VALUES (3, 'c', 5);
UPDATE maker SET town = 'Hull' WHERE maker_id = 1;
"""
TECHNICAL = {"_run": "bigint", "_batch_id": "uuid", "_loaded_at": "timestamptz", "_deleted_at": "timestamptz"}
OTHERS: dict[Kind, Sequence[str]] = {
    Kind.INTEGER: ("0", "1", "-1", "99"),
    Kind.BIGINT: ("0", "9007199254740992", "-1"),
    Kind.NUMERIC: ("0", "1.2346", "-0.01"),
    Kind.TEXT: ("''", "'(unknown)'", "' '", "'Ada '", "'A'"),
    Kind.BOOLEAN: ("true", "false"),
    Kind.DATE: ("'0001-01-01'", "'9999-12-31'", "'2026-01-02'"),
    Kind.TIME: ("'00:00'", "'03:04:05.000007'"),
    Kind.TIMESTAMP: ("'0001-01-01'", "'2026-01-02 03:04:05'"),
}


@pytest.fixture
async def shop(source_url: str, pipeline: Pipeline) -> Pipeline:
    """The shop after two runs, of which the first compared keys; without the constraints that would refuse a tampering."""
    owner = await asyncpg.connect(source_url)
    await owner.execute(f"{SCHEMA} GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC; {ROWS}")
    opened = pipeline.reading(SHOP)
    await opened.run()
    await owner.execute(LATER)
    await opened.run()
    await owner.close()
    for table, name in await opened.select(
        "SELECT conrelid::regclass::text, quote_ident(conname) FROM pg_constraint WHERE contype = 'f'"
    ):
        await opened.select(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    return opened


@pytest.fixture
async def forger(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A session that may do anything to the star and gets PostgreSQL's own errors."""
    connection = await asyncpg.connect(postgres_cluster.url(warehouse_database, LOADER))
    yield connection
    await connection.close()


async def seen(pipeline: Pipeline, table: WarehouseTable) -> Counter[tuple[Any, ...]]:
    """The rows that a reader of a table sees, by a query of its own."""
    columns = ", ".join(f"{quoted(column.name)}::text" for column in table.columns)
    if isinstance(table, Fact):
        key = ", ".join(map(quoted, table.key))
        order = ", ".join(f"{quoted(name)} DESC" for name in ("_run", *table.version))
        newest = f"(SELECT DISTINCT ON ({key}) * FROM {quoted(table.name)} ORDER BY {key}, {order}) AS t"
        return Counter(await pipeline.select(f"SELECT {columns} FROM {newest} WHERE _deleted_at IS NULL"))
    return Counter(await pipeline.select(f"SELECT {columns} FROM {quoted(table.name)} WHERE _deleted_at IS NULL"))


def is_same(table: WarehouseTable, before: Counter[tuple[Any, ...]], now: Counter[tuple[Any, ...]]) -> bool:
    """A calendar may have more days than it needs, if they are described as they are."""
    if not isinstance(table, Calendar):
        return before == now
    return before <= now and all(dt.date.fromisoformat(day).strftime("%A") == name for day, name in now)


async def other_value(random: Random, pipeline: Pipeline, table: WarehouseTable, name: str) -> str:
    """An SQL expression: NULL, another row's value, or a value close to it."""
    kind: ColumnType | None = None if name in TECHNICAL else table.column(name).type
    choice = random.randrange(3)
    if choice == 0:
        return "NULL"
    if choice == 1 or (kind is not None and kind.kind not in OTHERS):
        rows = await pipeline.select(f"SELECT {quoted(name)}::text FROM {quoted(table.name)}")
        text = random.choice(rows)[0] if rows else None
        sql = TECHNICAL[name] if kind is None else kind.sql
        return "NULL" if text is None else f"{literal(text)}::{sql}"
    if name == "_run":
        return random.choice(("0", "-1", "_run - 1", "_run + 1", str(2**62)))
    if name == "_batch_id":
        return "gen_random_uuid()"
    return random.choice(OTHERS[kind.kind]) if kind is not None else "clock_timestamp()"


async def tampering(random: Random, pipeline: Pipeline) -> str:
    """A statement that changes, adds or removes a row of the star, in whichever columns."""
    table = random.choice(SHOP.warehouse_tables)
    columns = [*table.star_types, *(() if isinstance(table, Calendar) else TECHNICAL)]
    chosen = random.sample(columns, min(len(columns), random.choice((1, 1, 1, 2, 3))))
    changes = {quoted(name): await other_value(random, pipeline, table, name) for name in chosen}
    row = f"ctid = (SELECT ctid FROM {quoted(table.name)} ORDER BY md5(ctid::text || '{random.random()}') LIMIT 1)"
    match random.randrange(4):
        case 0:
            return f"DELETE FROM {quoted(table.name)} WHERE {row}"
        case 1:
            names = ", ".join(map(quoted, columns))
            values = ", ".join(changes.get(quoted(name), quoted(name)) for name in columns)
            return f"INSERT INTO {quoted(table.name)} ({names}) SELECT {values} FROM {quoted(table.name)} WHERE {row}"
        case _:
            return f"UPDATE {quoted(table.name)} SET {', '.join(f'{n} = {v}' for n, v in changes.items())} WHERE {row}"


async def tampered(random: Random, pipeline: Pipeline, forger: asyncpg.Connection) -> list[str]:
    """Tamper with the star and return how; a statement that a constraint refuses changes nothing."""
    done = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        statement = await tampering(random, pipeline)
        try:
            await forger.execute(statement)
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError):
            continue
        done.append(statement)
    return done


async def test_a_tampered_star_is_never_equal(shop: Pipeline, forger: asyncpg.Connection) -> None:
    verdict = await shop.verify()
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 0)
    names = [quoted(table.name) for table in SHOP.warehouse_tables]
    for name in names:
        await shop.select(f"CREATE TABLE {quoted(f'kept {name}')} AS TABLE {name}")
    before = {table.name: await seen(shop, table) for table in SHOP.warehouse_tables}
    outcomes = Counter[Outcome]()
    for number in range(TAMPERINGS):
        done = await tampered(Random(f"{SEED}/{number}"), shop, forger)  # noqa: S311 (to be repeated, not to be secret)
        now = {table.name: await seen(shop, table) for table in SHOP.warehouse_tables}
        is_equal = all(is_same(table, before[table.name], now[table.name]) for table in SHOP.warehouse_tables)
        verdict = await shop.verify()
        assert verdict.is_equal is is_equal, (SEED, number, done, verdict)
        outcomes[verdict.outcome] += 1
        await shop.select(f"TRUNCATE {', '.join(names)}")
        for name in names:
            await shop.select(f"INSERT INTO {name} OVERRIDING SYSTEM VALUE TABLE {quoted(f'kept {name}')}")
    assert outcomes[Outcome.DIFFERENT] > TAMPERINGS / 3
