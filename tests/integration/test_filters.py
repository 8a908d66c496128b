"""A star whose tables leave out rows by `where` stays equal to its source, and its rows are those of a SELECT by hand."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from random import Random
from typing import Any

import asyncpg
import pytest

from contracts.messages import BatchRemodelled
from contracts.proofs import Outcome
from contracts.tables import Fact
from contracts.warehouse import current_name
from contracts.yaml_text import read_contract
from services.loading.postgres_warehouse import PostgresWarehouse
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Mismatch
from services.operator.quarantine import quarantined
from services.operator.trace.life import AtSource
from shared.sql import quoted
from tests.fixtures.filtered_contract import BY_HAND, DOCUMENT, FILTERED, ROWS, SCHEMA, random_change
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.tracing import life
from tests.integration.crashes import KilledError, killing
from tests.integration.plain_star import keys_in_quarantine, require_equal


@pytest.fixture
async def filtered(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    await owner.execute(SCHEMA)
    await owner.execute(ROWS)
    return empty.reading(FILTERED)


async def held(pipeline: Pipeline, name: str, columns: str = "") -> list[tuple[Any, ...]]:
    """What a reader of a star table sees."""
    table = pipeline.contract.warehouse_table(name)
    relation = current_name(name) if isinstance(table, Fact) else name
    chosen = columns or ", ".join(quoted(column) for column in table.star_types)
    order = ", ".join(map(quoted, table.key))
    return await pipeline.select(f"SELECT {chosen} FROM {relation} WHERE _run > 0 AND _deleted_at IS NULL ORDER BY {order}")


async def require_as_by_hand(owner: asyncpg.Connection, pipeline: Pipeline) -> None:
    """Every star table holds what a statement written by hand finds at the source, apart from the rows in quarantine."""
    refused = await keys_in_quarantine(pipeline)
    for name, statement in BY_HAND.items():
        table = pipeline.contract.warehouse_table(name)
        size = len(table.key)

        def kept(rows: Iterable[Iterable[Any]], name: str = name, size: int = size) -> list[tuple[Any, ...]]:
            return [row for row in map(tuple, rows) if row[:size] not in refused.get(name, ())]

        by_hand = sorted((tuple(row) for row in await owner.fetch(statement)), key=lambda row: row[:size])
        assert kept(await held(pipeline, name)) == kept(by_hand), name


async def test_tables_of_one_source_table_leave_out_rows_each_by_its_own_filter(
    owner: asyncpg.Connection, filtered: Pipeline
) -> None:
    await filtered.run()
    assert await held(filtered, "dim_customer", "customer_id") == [(1,), (3,)]
    assert await held(filtered, "dim_partner", "customer_id") == [(1,), (2,)]
    assert await held(filtered, "dim_everyone", "customer_id") == [(1,), (2,), (3,), (4,)]
    assert await held(filtered, "fact_sale", "region, sale_id") == [("N", 1), ("S", 1), ("S", 2)]
    await require_as_by_hand(owner, filtered)
    await require_equal(filtered)


async def test_a_fact_that_refers_to_a_rejected_row_meets_a_member_that_is_unknown_and_marked(
    owner: asyncpg.Connection, filtered: Pipeline
) -> None:
    """Customer 4 is rejected, and 9 does not exist. One that was accepted before keeps its last accepted image, marked."""
    members = "SELECT customer_id, name, _run > 0, _deleted_at IS NOT NULL FROM dim_customer WHERE customer_id IN (1, 4, 9)"
    await filtered.run()
    await owner.execute("UPDATE customer SET name = 'gone', deleted_at = now() WHERE customer_id = 1")
    messages = await filtered.run()
    found = [(1, "Ada", True, True), (4, None, False, True), (9, None, False, False)]
    assert sorted(await filtered.select(members)) == found
    rejected, missing = await life(filtered, "dim_customer", "4"), await life(filtered, "dim_customer", "9")
    assert (rejected.at_source, missing.at_source) == (AtSource.REJECTED, AtSource.NOWHERE)
    await require_equal(filtered)
    await filtered.load(*messages)
    assert sorted(await filtered.select(members)) == found


async def test_a_row_that_is_accepted_rejected_and_accepted_again_ends_as_it_is_in_any_order_of_its_runs(
    owner: asyncpg.Connection, filtered: Pipeline
) -> None:
    changes = (
        "UPDATE customer SET deleted_at = now(), credit = 1, kind = 'other' WHERE customer_id = 1",
        "UPDATE sale SET status = 'draft' WHERE region = 'N'",
        "UPDATE customer SET deleted_at = NULL, name = 'Ada II', kind = 'partner', credit = 30 WHERE customer_id = 1",
        "UPDATE sale SET status = 'open', amount = 9 WHERE region = 'N'",  # of the same version
        "UPDATE sale SET status = 'draft', changed_at = '2026-02-01' WHERE region = 'N' AND sale_id = 1",
    )
    runs = [await filtered.read()]
    for change in changes:
        await owner.execute(change)
        runs.append(await filtered.read())
    dumps = []
    for order in [*permutations(runs, len(runs))][::37]:
        await filtered.star.ensure_schema()
        await filtered.empty_warehouse()
        await filtered.settle(await filtered.load(*(message for run in order for message in run)))
        dumps.append(await filtered.dump())
    assert all(dump == dumps[0] for dump in dumps)
    assert await held(filtered, "dim_partner", "customer_id, name") == [(1, "Ada II"), (2, "Bob")]
    assert await held(filtered, "fact_sale", "region, sale_id, amount::integer") == [("N", 2, 9), ("S", 1, 3), ("S", 2, 4)]
    await require_as_by_hand(owner, filtered)
    await require_equal(filtered)


async def test_a_changed_filter_reads_everything_again_and_marks_what_it_rejects(
    owner: asyncpg.Connection, filtered: Pipeline
) -> None:
    await filtered.run()
    stricter = DOCUMENT.replace("where: deleted_at IS NULL", "where: deleted_at IS NULL AND name <> 'Cy'")
    again = filtered.reading(read_contract(stricter.replace("status <> 'draft' AND ", ""), "filtered.yaml"))
    await again.run()
    assert await held(again, "dim_customer", "name") == [("Ada",)]
    assert await held(again, "fact_sale", "region, sale_id") == [("N", 1), ("N", 2), ("S", 1), ("S", 2), ("S", 3)]
    await require_equal(again)
    await filtered.run()
    await require_as_by_hand(owner, filtered)
    await require_equal(filtered)


async def test_a_row_whose_verdict_never_arrived_is_found_by_a_comparison_of_keys(
    owner: asyncpg.Connection, filtered: Pipeline
) -> None:
    """The run that read it is lost. It exists, so that only a second look at the row itself tells that it is rejected."""
    await filtered.run()
    await owner.execute("UPDATE customer SET deleted_at = now() WHERE customer_id = 3")
    await filtered.read()  # never loaded
    assert ("Cy",) in await held(filtered, "dim_customer", "name")
    await filtered.run(compare_keys=True)
    assert await held(filtered, "dim_customer", "name") == [("Ada",)]
    await require_as_by_hand(owner, filtered)


async def test_a_comparison_of_keys_asks_about_no_row_that_a_filter_rejects(
    owner: asyncpg.Connection, filtered: Pipeline
) -> None:
    await filtered.run()
    assert await filtered.load(*await filtered.read(compare_keys=True)) == []
    await owner.execute("DELETE FROM customer WHERE customer_id IN (1, 4)")
    (question,) = [one.data.rows for one in await filtered.load(*await filtered.read(compare_keys=True))][:1]
    assert question[0].keys == ((1,),)


@pytest.mark.parametrize(
    ("damage", "kind", "name"),
    [
        ("UPDATE dim_customer SET _deleted_at = NULL WHERE customer_id = 2", Mismatch.EXTRA, "dim_customer"),
        ("UPDATE dim_customer SET _deleted_at = now() WHERE customer_id = 3", Mismatch.MISSING, "dim_customer"),
        ("DELETE FROM dim_partner WHERE customer_id = 5", Mismatch.MISSING, "dim_partner"),
        ("INSERT INTO dim_partner (customer_id, name, _run) VALUES (3, 'Cy', 1)", Mismatch.EXTRA, "dim_partner"),
        ("UPDATE fact_sale SET _deleted_at = NULL WHERE sale_id = 1 AND region = 'N'", Mismatch.EXTRA, "fact_sale"),
    ],
)
async def test_a_row_that_is_in_the_star_against_the_filter_differs_and_so_does_one_that_is_missing(
    owner: asyncpg.Connection, filtered: Pipeline, damage: str, kind: Mismatch, name: str
) -> None:
    await owner.execute("UPDATE customer SET deleted_at = NULL WHERE customer_id = 2")
    await owner.execute("INSERT INTO customer VALUES (5, 'Ed', 'partner', 11, NULL, NULL, 1)")
    await filtered.run()
    await owner.execute("UPDATE customer SET deleted_at = now() WHERE customer_id = 2")
    await owner.execute("UPDATE sale SET status = 'draft' WHERE region = 'N'")
    await filtered.run()
    await require_equal(filtered)
    await filtered.select(damage)
    verdict = await filtered.verify()
    assert [(of.table, one.kind) for of in verdict.tables for one in of.differences] == [(name, kind)]
    (wish,) = await plan_repair(filtered.system, verdict)
    await filtered.run(reread=wish.reread, compare_keys=wish.compare_keys)
    await require_equal(filtered)


async def test_a_row_that_a_filter_has_come_to_reject_waits_for_the_run_that_will_read_it(
    owner: asyncpg.Connection, filtered: Pipeline
) -> None:
    """Not for a comparison of keys, however long ago the last one was; one that a run has read already waits for that."""
    await filtered.run(compare_keys=True)
    await filtered.select("UPDATE starlift.key_comparison SET found_at = found_at - interval '1 hour'")
    await owner.execute("UPDATE sale SET status = 'draft' WHERE region = 'N'")
    verdict = await filtered.verify()
    assert (verdict.outcome, verdict.in_flight, verdict.stuck) == (Outcome.EQUAL, 1, 0)
    await filtered.run()
    await require_equal(filtered)
    await filtered.select("UPDATE fact_sale SET _deleted_at = NULL WHERE region = 'N'")
    await filtered.select("DELETE FROM starlift.tombstone WHERE table_name = 'fact_sale'")
    verdict = await filtered.verify()
    assert (verdict.outcome, verdict.in_flight, verdict.stuck) == (Outcome.PENDING, 0, 1)
    assert [reason.partition(":")[0] for reason in verdict.reasons] == [
        "keys were last compared 60 min ago, and rows have been deleted since"
    ]


async def test_a_row_whose_filter_cannot_be_computed_is_quarantined_until_it_is_rejected(
    owner: asyncpg.Connection, filtered: Pipeline
) -> None:
    await filtered.run()
    await owner.execute("UPDATE sale SET status = repeat('x', 100001) WHERE region = 'N' AND sale_id = 1")
    await owner.execute("UPDATE customer SET since = 'infinity' WHERE customer_id = 1")  # of all tables that read it
    await filtered.run()
    (entry,) = await quarantined(filtered.system, "fact_sale")
    assert [problem.reason for problem in entry.problems] == [
        "has a filter that reads 'status', which is longer than 100,000 characters"
    ]
    assert (await keys_in_quarantine(filtered))["dim_partner"] == [(1,)]
    assert await held(filtered, "fact_sale", "region, sale_id") == [("N", 1), ("S", 1), ("S", 2)]  # as it was
    verdict = await filtered.verify()
    assert ([one for of in verdict.tables for one in of.differences], verdict.outcome) == ([], Outcome.EQUAL)
    await owner.execute("UPDATE sale SET status = 'draft' WHERE region = 'N'")
    await owner.execute("UPDATE customer SET since = NULL, kind = NULL, deleted_at = 'infinity' WHERE customer_id = 1")
    await filtered.run()
    assert {table: keys for table, keys in (await keys_in_quarantine(filtered)).items() if keys} == {"dim_everyone": [(1,)]}
    await require_as_by_hand(owner, filtered)
    await require_equal(filtered)  # what dim_everyone refuses has not changed


async def test_a_filter_reads_a_short_text_of_a_row_that_is_too_large_to_travel(
    owner: asyncpg.Connection, filtered: Pipeline
) -> None:
    """Otherwise the proof would know that the row is rejected, and remodelling would not."""
    await filtered.run()
    half = "repeat('x', 30 * 1024 * 1024)"
    await owner.execute(f"UPDATE customer SET name = {half}, note = {half}, kind = 'other' WHERE customer_id = 1")
    await filtered.run()
    assert await keys_in_quarantine(filtered) == {"dim_customer": [(1,)], "dim_everyone": [(1,)]}
    assert await held(filtered, "dim_partner", "customer_id") == [(2,)]
    await require_equal(filtered, quarantined=2)


@pytest.mark.parametrize(("method", "is_in"), [("_load", False), ("load", True)])
async def test_a_loader_killed_before_or_after_it_commits_verdicts_applies_them_once(
    owner: asyncpg.Connection, filtered: Pipeline, monkeypatch: pytest.MonkeyPatch, method: str, *, is_in: bool
) -> None:
    await filtered.run()
    await owner.execute("UPDATE customer SET deleted_at = now(), name = 'gone' WHERE customer_id IN (1, 3)")
    (ingested,) = await filtered.ingest()
    message, again = await filtered.remodel(ingested), await filtered.remodel(ingested)
    assert message.data == again.data
    with monkeypatch.context() as patch:
        patch.setattr(PostgresWarehouse, method, killing(getattr(PostgresWarehouse, method)))
        with pytest.raises(KilledError):
            await filtered.load(message)
    assert await held(filtered, "dim_customer", "name") == ([] if is_in else [("Ada",), ("Cy",)])
    await filtered.load(message, again)
    assert await held(filtered, "dim_customer", "name") == []
    assert await held(filtered, "dim_everyone", "name") == [("gone",), ("Bob",), ("gone",), ("Di",)]
    await require_equal(filtered)


@pytest.mark.parametrize("seed", range(4))
async def test_any_changes_in_any_order_end_equal(owner: asyncpg.Connection, filtered: Pipeline, seed: int) -> None:
    random, messages = Random(seed), list[BatchRemodelled]()  # noqa: S311 (repeatable on purpose)
    pipeline = filtered.cut(random.choice([2, 100]))
    for _ in range(8):
        messages += await pipeline.read(compare_keys=random.random() < 0.3)
        for _ in range(random.randint(1, 8)):
            await owner.execute(random_change(random))
    messages += await pipeline.read(compare_keys=True)
    random.shuffle(messages)
    await pipeline.settle(await pipeline.load(*messages, *random.choices(messages, k=3)))
    verdict = await pipeline.verify()
    assert [difference for table in verdict.tables for difference in table.differences] == []
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 0)
    await require_as_by_hand(owner, pipeline)
