"""Columns and a filter that are read from documents, arrays, texts and timestamptz stay equal to the source; and constants."""

from __future__ import annotations

from random import Random
from typing import Any

import asyncpg
import pytest

from contracts.messages import BatchRemodelled
from contracts.proofs import Outcome
from contracts.yaml_text import read_contract
from services.operator.quarantine import quarantined
from shared.sql import literal
from tests.fixtures.pipeline import Pipeline
from tests.integration.plain_star import keys_in_quarantine, require_equal

EVENTS = read_contract(
    """
name: events
star:
  dim_event:
    dimension: event
    where: COALESCE(doc ->> 'kind', '') <> 'test' AND COALESCE((doc ->> 'rank')::integer, 1) > 0
    columns:
      event_id:
      currency: {sql: "'EUR'", type: text}
      one: {sql: 1, type: integer}
      title: {sql: doc ->> 'title', type: varchar(10)}
      price: {sql: "(doc -> 'prices' ->> 0)::numeric(10,4)", type: "numeric(10,2)"}
      tags: {sql: cardinality(tags), type: integer}
      rows: {sql: "array_length(tags, 1)", type: integer}
      number: {sql: TRY_CAST(note AS integer), type: integer}
      due: {sql: "CAST(NULLIF(due, '') AS date)", type: date}
      day: {sql: "(COALESCE(ended_at, began_at) AT TIME ZONE 'UTC')::date", type: date}
      is_open: {sql: ended_at IS NULL, type: boolean}
      has_place: {sql: place IS NOT NULL, type: boolean}
source:
  tables:
    event:
      key: event_id
      columns:
        event_id: integer not null
        doc: jsonb
        tags: text[]
        note: text
        due: text
        began_at: timestamptz
        ended_at: timestamptz
        place: public.place
""",
    "events.yaml",
)
SCHEMA = """
CREATE TYPE place AS (x int, y int);
CREATE TABLE event (
    event_id int PRIMARY KEY, doc jsonb, tags text[], note text, due text, began_at timestamptz, ended_at timestamptz,
    place place
)
"""
BY_HAND = """
SELECT event_id, 'EUR', 1, doc ->> 'title', round((doc #>> '{prices,0}')::numeric, 2), cardinality(tags), array_length(tags, 1),
    CASE WHEN btrim(note) ~ '^[-+]?\\d+$' THEN note::integer END, nullif(due, '')::date,
    timezone('UTC', coalesce(ended_at, began_at))::date, ended_at IS NULL, place IS DISTINCT FROM NULL
FROM event WHERE event_id <> ALL ($1) AND doc ->> 'kind' IS DISTINCT FROM 'test'
    AND (doc ->> 'rank' IS NULL OR (doc ->> 'rank')::integer > 0)
ORDER BY 1
"""
GOOD = '{"title": "a \\"b\\"", "prices": [1.005, 2], "rank": "3"}'


@pytest.fixture
async def events(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    await owner.execute(SCHEMA)
    return empty.reading(EVENTS)


async def held(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    columns = ", ".join(column.name for column in EVENTS.warehouse_tables[0].columns)
    return await pipeline.select(f"SELECT {columns} FROM dim_event WHERE _deleted_at IS NULL ORDER BY 1")


async def require_as_by_hand(owner: asyncpg.Connection, pipeline: Pipeline) -> None:
    refused = [key for (key,) in (await keys_in_quarantine(pipeline)).get("dim_event", [])]
    by_hand = [tuple(row) for row in await owner.fetch(BY_HAND, refused)]
    assert [row for row in await held(pipeline) if row[0] not in refused] == by_hand


async def test_parts_of_documents_and_arrays_and_constants_are_columns(owner: asyncpg.Connection, events: Pipeline) -> None:
    await owner.execute(
        "INSERT INTO event VALUES (1, $1, '{{a,b},{c,d}}', ' 12 ', '2026-02-28', '2026-01-01 00:30+01', NULL, NULL), "
        "(2, NULL, '{}', 'x', '', NULL, '2026-03-01 00:00+00', NULL), "
        '(3, \'{"kind": "test"}\', NULL, NULL, NULL, NULL, NULL, NULL), '
        "(4, '{\"rank\": 0}', NULL, NULL, NULL, NULL, NULL, NULL), (5, '[]', NULL, NULL, NULL, NULL, NULL, ROW(NULL, NULL))",
        GOOD,
    )
    await events.run()
    found = [tuple(map(str, row)) for row in await held(events)]
    assert found == [
        ("1", "EUR", "1", 'a "b"', "1.01", "4", "2", "12", "2026-02-28", "2025-12-31", "True", "False"),
        ("2", "EUR", "1", "None", "None", "0", "None", "None", "None", "2026-03-01", "False", "False"),
        (
            "5",
            "EUR",
            "1",
            "None",
            "None",
            "None",
            "None",
            "None",
            "None",
            "None",
            "True",
            "True",
        ),  # a row of NULLs is NULL to IS NULL, and is not
    ]
    await require_as_by_hand(owner, events)
    await require_equal(events)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("due = '2026-02-29'", "casts a text that is not a date (YYYY-MM-DD)"),
        ('doc = \'{"prices": ["1e3"]}\'', "casts a text that is not a number"),
        ('doc = \'{"prices": ["1234567890"]}\'', "does not fit numeric(10,2)"),
        ('doc = \'{"rank": "x"}\'', "has a filter that casts a text that is not a whole number"),
        ("doc = jsonb_build_object('title', repeat('x', 100000))", "reads 'doc', which is longer than 100,000 characters"),
        ("began_at = 'infinity'", "began_at is infinite"),
        ("note = '9999999999'", "does not fit integer"),
        ('doc = \'{"title": "longer than ten"}\'', "is longer than 10"),
    ],
)
async def test_a_text_that_does_not_spell_what_it_is_cast_to_sends_its_row_to_quarantine(
    owner: asyncpg.Connection, events: Pipeline, change: str, reason: str
) -> None:
    await owner.execute("INSERT INTO event VALUES (1, $1, '{a}', '1', '2026-02-28', now(), NULL)", GOOD)
    await events.run()
    await owner.execute(f"UPDATE event SET {change}")
    await events.run()
    (entry,) = await quarantined(events.system, "dim_event")
    assert any(reason in problem.reason for problem in entry.problems)
    verdict = await events.verify()
    assert [one for table in verdict.tables for one in table.differences] == []
    assert (verdict.outcome, verdict.quarantined) == (Outcome.EQUAL, 1)


VALUES: dict[str, tuple[str | None, ...]] = {
    "event_id": ("1", "2", "3", "4"),
    "doc": (
        *(None, "null", "5", '"x"', "[]", "[1, 2]", '{"title": null}', '{"title": {"b": [1, "}"]}, "prices": {"0": 1}}'),
        *(GOOD, '{"kind": "test"}', '{"rank": "-1"}', '{"rank": 1.5}', '{"prices": ["12"]}', '{"prices": ["1 2"]}'),
    ),
    "tags": (None, "{}", "{a}", '{"a,b","{",NULL}', "[5:6]={x,y}", '{{"\\"","}"}}'),
    "note": (None, "", "12", "-0", "1.0", "99999999999", "\u0661"),
    "due": (None, "", "2024-02-29", "2025-02-29", "soon", "0000-01-01", "9999-12-31"),
    "began_at": (None, "2026-01-01 00:00+02", "infinity", "0001-01-01 00:00+00", "10000-01-01 00:00+00"),
    "ended_at": (None, "2026-07-01 23:59:59.999999+00", "-infinity"),
    "place": (None, "(,)", "(1,)"),
}


@pytest.mark.parametrize("seed", range(3))
async def test_any_changes_in_any_order_end_equal(owner: asyncpg.Connection, events: Pipeline, seed: int) -> None:
    random, messages = Random(seed), list[BatchRemodelled]()  # noqa: S311 (repeatable on purpose)
    for _ in range(8):
        messages += await events.read(compare_keys=random.random() < 0.3)
        for _ in range(random.randint(1, 8)):
            row = {name: random.choice(values) for name, values in VALUES.items()}
            values = ", ".join("NULL" if value is None else literal(value) for value in row.values())
            changed = ", ".join(f"{name} = excluded.{name}" for name in row)
            await owner.execute(f"INSERT INTO event VALUES ({values}) ON CONFLICT (event_id) DO UPDATE SET {changed}")
    messages += await events.read(compare_keys=True)
    random.shuffle(messages)
    await events.settle(await events.load(*messages))
    verdict = await events.verify()
    assert [difference for table in verdict.tables for difference in table.differences] == []
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 0)
    await require_as_by_hand(owner, events)
