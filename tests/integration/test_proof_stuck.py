"""Rows that are not on their way: each reason is named with its rows, the verdict is PENDING, and it hides no difference."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from contracts.messages import BatchRemodelled, Mode, encode
from contracts.proofs import Outcome
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Difference, Mismatch
from services.operator.proof.verdict import Scope, Verdict
from shared.testing import FakeQueue
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.pipeline import Pipeline

pytestmark = begins_with(loaded_totesys(orders=20))
RENAME = "UPDATE design SET design_name = 'renamed' WHERE design_id = 1"
PAID = "UPDATE payment SET payment_amount = 7 WHERE payment_id = 3"
FORGED = "UPDATE fact_payment SET payment_amount = 8 WHERE payment_id = 3"
PATIENT = Scope(settle=timedelta(minutes=10))  # none of these may wait


def found(verdict: Verdict) -> list[tuple[str, Mismatch, object]]:
    """Every difference: table, kind, key."""
    return [(table.table, one.kind, one.key[0]) for table in verdict.tables for one in table.differences]


async def test_an_emptied_table_is_stuck_until_a_person_confirms_it(source: asyncpg.Connection, loaded: Pipeline) -> None:
    payments = await source.fetchval("SELECT count(*) FROM payment")
    await source.execute("TRUNCATE payment")
    verdict = await loaded.verify()
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, payments)  # no comparison of keys was due yet
    for _ in range(3):
        await loaded.run(compare_keys=True)
        verdict = await loaded.verify(PATIENT)
        assert (verdict.outcome, verdict.in_flight, verdict.stuck) == (Outcome.PENDING, 0, payments)
        ((reason, rows),) = verdict.reasons.items()
        assert rows == payments
        assert reason.startswith("source table 'payment' is empty")
        assert "`starlift ingest --compare-keys --believe-empty`" in reason
        assert await plan_repair(loaded.system, verdict) == []
    await loaded.select("INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (99, 'BARTER', 0)")
    verdict = await loaded.verify()
    assert (verdict.outcome, found(verdict)) == (Outcome.DIFFERENT, [("dim_payment_type", Mismatch.EXTRA, 99)])
    await loaded.run(compare_keys=True, believe_empty=True)
    verdict = await loaded.verify()
    assert (verdict.outcome, verdict.in_flight, verdict.reasons) == (Outcome.EQUAL, 0, {})
    assert await loaded.select("SELECT count(*) FROM fact_payment_current") == [(0,)]


async def with_dead_letters(pipeline: Pipeline, *batches: BatchRemodelled) -> Pipeline:
    """The same pipeline with these batches among the dead letters of loading."""
    letters = FakeQueue("loading-dlq")
    for batch in batches:
        await letters.send(encode(batch))
    return replace(pipeline, dead_letters={"loading": letters})


async def test_a_gap_excuses_only_rows_its_own_run_has_read(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute(RENAME)
    late = await loaded.read()
    await source.execute(PAID)
    await loaded.run()
    verdict = await loaded.verify()
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 1)
    dead = await with_dead_letters(loaded, *late)
    verdict = await dead.verify(PATIENT)
    assert (verdict.outcome, verdict.in_flight, verdict.stuck) == (Outcome.PENDING, 0, 1)
    ((reason, rows),) = verdict.reasons.items()
    letter = dead.dead_letters["loading"].messages[0].message_id
    assert (rows, reason.partition(":")[0]) == (1, f"a batch of run {late[0].data.run} is dead letter {letter} of loading")
    await loaded.select(FORGED)  # which a loaded run has read, though the one before it is not loaded
    for pipeline in (loaded, await with_dead_letters(loaded, *late)):
        verdict = await pipeline.verify()
        assert (verdict.outcome, found(verdict)) == (Outcome.DIFFERENT, [("fact_payment", Mismatch.DIFFERENT, 3)])
    await loaded.load(*late)
    await loaded.run(reread=(await plan_repair(loaded.system, verdict))[0].reread)
    assert (await loaded.verify()).outcome is Outcome.EQUAL


async def test_a_gap_excuses_only_tables_of_its_missing_batches(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute(f"{RENAME}; {PAID}")
    batches = await loaded.cut(1).read()
    late = [batch for batch in batches if "fact_payment" not in {rows.table for rows in batch.data.tables}]
    assert [rows.table for batch in late for rows in batch.data.tables] == ["dim_design"]
    await loaded.load(*(batch for batch in batches if batch not in late))
    await loaded.select(FORGED)
    for pipeline in (loaded, await with_dead_letters(loaded, *late)):
        verdict = await pipeline.verify()
        assert (verdict.outcome, found(verdict)) == (Outcome.DIFFERENT, [("fact_payment", Mismatch.DIFFERENT, 3)])
        assert verdict.in_flight + verdict.stuck == 1


async def test_a_row_of_a_stuck_batch_that_a_later_run_read_again_differs(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute(RENAME)
    late = await loaded.read()
    await source.execute("UPDATE design SET file_name = 'again' WHERE design_id = 1")
    await loaded.run()
    await loaded.select("UPDATE dim_design SET design_name = 'forged' WHERE design_id = 1")
    verdict = await (await with_dead_letters(loaded, *late)).verify()
    assert (verdict.outcome, found(verdict)) == (Outcome.DIFFERENT, [("dim_design", Mismatch.DIFFERENT, 1)])


async def test_a_stuck_full_read_excuses_no_row_that_was_already_loaded(source: asyncpg.Connection, loaded: Pipeline) -> None:
    late = await loaded.read(Mode.FULL)
    await loaded.select(FORGED)
    verdict = await (await with_dead_letters(loaded, *late)).verify()
    assert (verdict.outcome, found(verdict)) == (Outcome.DIFFERENT, [("fact_payment", Mismatch.DIFFERENT, 3)])


@begins_with(filled_totesys(orders=20))
async def test_an_incomplete_first_load_is_pending(pipeline: Pipeline) -> None:
    first, *rest = await pipeline.cut(50).read()
    await pipeline.load(first)
    verdict = await pipeline.verify()
    assert (verdict.outcome, found(verdict)) == (Outcome.PENDING, [])
    assert list(verdict.reasons) == [
        f"the first load, run {first.data.run}, is not complete yet",
        "the first load has not ended: loading builds the keys of the star's tables at its end",
    ]
    await pipeline.load(*rest)
    assert (await pipeline.verify()).outcome is Outcome.EQUAL


async def test_deleted_rows_are_stuck_without_a_comparison_of_keys(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute("DELETE FROM payment WHERE payment_id = 3")
    await loaded.run()
    verdict = await loaded.verify()
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 1)
    await loaded.select("UPDATE starlift.key_comparison SET found_at = found_at - interval '20 min'")
    verdict = await loaded.verify(PATIENT)
    assert (verdict.outcome, verdict.in_flight, verdict.stuck) == (Outcome.PENDING, 0, 1)
    assert re.match(r"keys were last compared 2\d min ago", next(iter(verdict.reasons)))
    await loaded.run(compare_keys=True)
    assert (await loaded.verify()).outcome is Outcome.EQUAL


@pytest.mark.parametrize("service", ["ingestion", "loading"])
async def test_deleted_rows_are_stuck_if_their_question_or_its_answer_is_a_dead_letter(
    source: asyncpg.Connection, loaded: Pipeline, service: str
) -> None:
    letters = FakeQueue(f"{service}-dlq")
    pipeline = replace(loaded, dead_letters={service: letters})
    await source.execute("DELETE FROM payment WHERE payment_id = 3")
    (question,) = await pipeline.load(*await pipeline.read(compare_keys=True))
    (answer,) = [await pipeline.remodel(batch) for batch in await pipeline.obey(question)]
    assert (await pipeline.verify()).outcome is Outcome.EQUAL
    letter = await letters.send(encode(question if service == "ingestion" else answer))
    verdict = await pipeline.verify()
    assert (verdict.outcome, verdict.stuck) == (Outcome.PENDING, 1)
    assert f"dead letter {letter} of {service}: `starlift dlq show {letter}`" in " ".join(verdict.reasons)
    await pipeline.load(answer)
    assert (await pipeline.verify()).outcome is Outcome.EQUAL


MADE_UP = (
    "INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (99, 'BARTER', 0)",
    "INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (98, '(unknown)', 0)",  # unreferred
    "UPDATE dim_design SET _deleted_at = NULL WHERE design_id = 470",
)


async def test_rows_that_no_run_wrote_are_reported_and_marked_by_the_next_comparison(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    """Every row that a reader sees is compared, and rows that the source lacks leave the current views."""
    await source.execute("DELETE FROM design WHERE design_id = 470")
    await loaded.run(compare_keys=True)
    columns = ", ".join(loaded.contract.warehouse_table("fact_payment").star_types)
    changed = columns.replace("payment_id", "99 AS payment_id", 1)
    for statement in (*MADE_UP, f"INSERT INTO fact_payment ({columns}, _run) SELECT {changed}, 0 FROM fact_payment LIMIT 1"):
        await loaded.select(statement)
    verdict = await loaded.verify()
    expected = [
        ("dim_payment_type", Mismatch.EXTRA, 98),
        ("dim_payment_type", Mismatch.EXTRA, 99),
        ("dim_design", Mismatch.EXTRA, 470),
    ]
    assert sorted(found(verdict), key=str) == sorted([*expected, ("fact_payment", Mismatch.EXTRA, 99)], key=str)
    (wish,) = await plan_repair(loaded.system, verdict)
    assert (wish.reread, wish.compare_keys) == ((), True)
    await loaded.run(compare_keys=True)
    assert (await loaded.verify()).outcome is Outcome.EQUAL
    assert await loaded.select("SELECT count(*) FROM fact_payment_current WHERE payment_id = 99") == [(0,)]


async def test_a_row_forged_under_a_later_run_is_extra(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """Run and batch are copied from a row that was: what the batch has brought is in the bucket, and this row is not."""
    await source.execute("INSERT INTO design VALUES (900, 'brief', '/', 'f', now(), now())")
    await loaded.run()
    await source.execute("DELETE FROM design WHERE design_id = 900")
    await loaded.select(
        "INSERT INTO dim_design (design_id, design_name, file_location, file_name, _run, _batch_id) "
        "SELECT 901, design_name, file_location, file_name, _run, _batch_id FROM dim_design WHERE design_id = 900"
    )
    verdict = await loaded.verify()
    (design,) = [table for table in verdict.tables if table.table == "dim_design"]
    assert (design.differences, design.in_flight) == ((Difference(Mismatch.EXTRA, (901,)),), 1)


async def test_the_proof_is_never_equal_while_a_table_lacks_its_unique_key(loaded: Pipeline) -> None:
    key = await loaded.select("SELECT conname FROM pg_constraint WHERE conrelid = 'fact_payment'::regclass AND contype = 'u'")
    await loaded.select(f"ALTER TABLE fact_payment DROP CONSTRAINT {key[0][0]}")
    verdict = await loaded.verify()
    assert verdict.outcome is Outcome.PENDING
    ((reason, rows),) = verdict.reasons.items()
    assert (rows, reason.partition(" so it")[0]) == (
        0,
        "'fact_payment' has no unique key on (payment_id, last_updated_date, last_updated_time),",
    )
    await loaded.run(Mode.FULL)
    assert (await loaded.verify()).outcome is Outcome.EQUAL
