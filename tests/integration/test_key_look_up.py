"""Keys of the source are looked up by the index of the key, however they are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import asyncpg

from contracts.column_types import DATE, INTEGER, TEXT, TIMESTAMPTZ, UUID
from contracts.contract import Contract
from contracts.tables import SourceColumn, SourceTable
from shared.key_look_up import found_keys
from shared.source_keys import Key, select_found_keys

ROWS = 100_000
BY_NUMBER = SourceTable("by_number", ("id",), (SourceColumn("id", INTEGER),))
BY_TEXT = SourceTable("by_text", ("code",), (SourceColumn("code", TEXT),))
BY_UUID = SourceTable("by_uuid", ("id",), (SourceColumn("id", UUID),))
BY_TIME = SourceTable("by_time", ("on", "at"), (SourceColumn("on", DATE), SourceColumn("at", TIMESTAMPTZ)))
PADDED = SourceTable("padded", ("code",), (SourceColumn("code", TEXT),))
TABLES = (BY_NUMBER, BY_TEXT, BY_UUID, BY_TIME, PADDED)
CONTRACT = Contract("look_up", "public", "public", TABLES, ())
NUMBERS = f"generate_series(1, {ROWS}) AS n"
DDL = f"""
CREATE TABLE by_number AS SELECT n::integer AS id FROM {NUMBERS};
CREATE TABLE by_text AS SELECT n::varchar(20) AS code FROM {NUMBERS};
CREATE TABLE by_uuid AS SELECT md5(n::text)::uuid AS id FROM {NUMBERS};
CREATE TABLE by_time AS SELECT date '2026-01-01' + n % 100 AS on, timestamptz '2026-01-01 00:00+00' + n * interval '1 s' AS at
FROM {NUMBERS};
CREATE TABLE padded AS SELECT n::character(20) AS code FROM {NUMBERS};
ALTER TABLE by_number ADD PRIMARY KEY (id);
ALTER TABLE by_text ADD PRIMARY KEY (code);
ALTER TABLE by_uuid ADD PRIMARY KEY (id);
ALTER TABLE by_time ADD PRIMARY KEY ("on", at);
ALTER TABLE padded ADD PRIMARY KEY (code);
ANALYZE;
"""
# By table: keys that rows have, and keys that none has or that are not in PostgreSQL's spelling.
KEYS: dict[str, tuple[list[Key], list[Key]]] = {
    "by_number": ([(7,), (ROWS,)], [(0,), (2**40,), ("7",), ("seven",), (7, 8)]),
    "by_text": ([("7",), ("99",)], [("007",), (7,), ("7\x00",), ("7 ",)]),
    "by_uuid": (
        [("8f14e45f-ceea-167a-5a36-dedd4bea2543",)],
        [("8F14E45F-CEEA-167A-5A36-DEDD4BEA2543",), ("8f14e45f-ceea-167a-5a36-dedd4bea2544",), ("7",)],
    ),
    "by_time": (
        [("2026-01-08", "2026-01-01 00:00:07+00")],
        [("2026-01-08", "2026-01-01 01:00:07+01"), ("2026-01-08", "infinity"), ("2026-01-09", "2026-01-01 00:00:07+00")],
    ),
    "padded": ([("7",)], [("8 8",)]),
}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def test_every_type_of_key_is_found_by_its_index_and_only_in_its_canonical_form(owner: asyncpg.Connection) -> None:
    await owner.execute("SET TimeZone = 'UTC'")
    await owner.execute(DDL)
    for table in TABLES:
        there, missing = KEYS[table.name]
        explained = await owner.fetchval(f"EXPLAIN (FORMAT JSON) {select_found_keys(CONTRACT, table, there * 100)}")
        scans = [node for node in nodes(json.loads(explained)[0]["Plan"]) if node.get("Relation Name") == table.name]
        assert scans, table.name
        assert not any(scan["Node Type"] == "Seq Scan" for scan in scans), (table.name, scans)
        assert await found_keys(owner, CONTRACT, table, [*there, *missing]) == set(there), table.name


async def test_very_many_keys_of_several_columns_are_looked_up(owner: asyncpg.Connection) -> None:
    """As a list of rows PostgreSQL would nest them as deep as there are keys, and refuse the statement."""
    await owner.execute("SET TimeZone = 'UTC'")
    await owner.execute(DDL)
    some = await owner.fetch(f'SELECT "on"::text, at::text FROM by_time LIMIT {ROWS // 10}')
    keys = [tuple(row) for row in some]
    assert await found_keys(owner, CONTRACT, BY_TIME, keys) == set(keys)
    await owner.execute(select_found_keys(CONTRACT, BY_TIME, keys))  # in one statement, as rows that are read again are


async def test_a_quarantine_of_an_earlier_contract_may_name_impossible_keys(owner: asyncpg.Connection) -> None:
    """A key that was a text is a number now, or has one column more."""
    await owner.execute("CREATE TABLE by_number AS SELECT n::integer AS id FROM generate_series(1, 10) AS n")
    contract = replace(CONTRACT, source_tables=(BY_NUMBER,))
    assert await found_keys(owner, contract, BY_NUMBER, [("1",), ("x",), (1, "x"), (1,)]) == {(1,)}
