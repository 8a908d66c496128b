"""The history check on a real warehouse names exactly the wrong versions, each with its flaw."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest

from contracts.messages import Mode
from contracts.objects import SourceKeys
from services.operator.local.totesys.fill import fill
from services.operator.proof import history
from services.operator.proof.history import FactHistory, Flaw, FlawedVersion, HistoryVerdict, check_history, keep_baseline
from shared.errors import PermanentError
from shared.star_schema.views import create_view, views
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.pipeline import PROCESSED, SOURCE, Pipeline

FIRST, SECOND, THIRD = ("2024-02-29", "09:30:00"), ("2026-12-01", "10:00:00.001"), ("2026-12-02", "00:00:00")
PAID = "UPDATE payment SET paid = NOT paid, last_updated = $2::text::timestamp WHERE payment_id = $1"
OF_THREE = "FROM fact_payment WHERE payment_id = 3"


async def three_runs(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    """A small totesys after three runs; payment 3 has a version of each."""
    await fill(source, orders=20, seed=1)
    for date, time in (FIRST, SECOND, THIRD):
        await source.execute(PAID, 3, f"{date} {time}")
        await pipeline.run()


pytestmark = begins_with(three_runs)


async def checked(pipeline: Pipeline, *tables: str) -> HistoryVerdict:
    return await check_history(pipeline.system, tables)


async def of_payment(pipeline: Pipeline) -> FactHistory:
    (fact,) = (await checked(pipeline, "fact_payment")).facts
    return fact


async def found(pipeline: Pipeline) -> list[tuple[str, Flaw, tuple[str, ...], tuple[str, ...]]]:
    """Every problem, without its explanation."""
    return [
        (fact.table, problem.flaw, problem.key, problem.version)
        for fact in (await checked(pipeline)).facts
        for problem in fact.problems
    ]


async def runs(pipeline: Pipeline) -> list[int]:
    return [run for (run,) in await pipeline.select("SELECT run FROM starlift.ledger ORDER BY run")]


async def without_uniqueness(pipeline: Pipeline) -> None:
    await pipeline.select(
        "ALTER TABLE fact_payment DROP CONSTRAINT fact_payment_payment_id_last_updated_date_last_updated_time_key"
    )


async def doubled(pipeline: Pipeline, changes: str) -> None:
    """Insert a copy of payment 3's newest version with some columns changed."""
    columns = [*pipeline.contract.warehouse_table("fact_payment").star_types, "_run", "_batch_id"]
    values = dict(zip(columns, columns, strict=True)) | dict(pair.split(" = ") for pair in changes.split(", ") if pair)
    await pipeline.select(
        f"INSERT INTO fact_payment ({', '.join(columns)}) "
        f"SELECT {', '.join(values.values())} {OF_THREE} ORDER BY fact_payment._run DESC LIMIT 1"
    )


async def replace_view(pipeline: Pipeline, right: str, wrong: str) -> None:
    (view,) = (view for view in views(pipeline.contract) if view.name == "fact_payment_current")
    statement = create_view(pipeline.contract, view)
    assert right in statement
    await pipeline.select(statement.replace(right, wrong))


async def test_a_loaded_history_is_complete(loaded: Pipeline) -> None:
    verdict = await checked(loaded)
    assert verdict.is_complete
    payments = verdict.facts[2]
    assert [fact.table for fact in verdict.facts] == ["fact_sales_order", "fact_purchase_order", "fact_payment"]
    assert [fact.batches for fact in verdict.facts] == [1, 1, 3]
    assert (payments.versions, payments.unread_batches, payments.unread_until) == (payments.rows, 0, None)
    assert await loaded.select("SELECT count(*) FROM fact_payment") == [(payments.rows,)]


async def test_batches_of_another_source_are_not_checked(loaded: Pipeline) -> None:
    """Two sources may fill two schemas of one database, and share the ledger."""
    await loaded.select(
        "INSERT INTO starlift.ledger (batch_id, source_name, run, batch_index, event, snapshot_at) "
        "SELECT gen_random_uuid(), 'another', run, batch_index, event, snapshot_at FROM starlift.ledger"
    )
    assert [fact.unread_batches for fact in (await checked(loaded)).facts] == [0, 0, 0]
    assert (await of_payment(loaded)).batches == 3


async def test_only_the_named_facts_are_checked(loaded: Pipeline) -> None:
    heard: list[str] = []
    verdict = await check_history(loaded.system, ["fact_payment", "dim_date"], heard.append)
    assert [fact.table for fact in verdict.facts] == heard == ["fact_payment"]


async def test_a_history_reread_by_a_full_read_is_complete(loaded: Pipeline) -> None:
    await loaded.run(Mode.FULL)
    verdict = await checked(loaded)
    assert verdict.is_complete
    payments = verdict.facts[2]
    assert payments.versions == payments.rows + payments.rows - 2


@pytest.mark.parametrize("version", [FIRST, SECOND], ids=["first", "second"])
async def test_a_version_that_was_deleted_is_lost(version: tuple[str, str], loaded: Pipeline) -> None:
    await loaded.select(f"DELETE {OF_THREE} AND last_updated_date::text = '{version[0]}'")
    assert await found(loaded) == [("fact_payment", Flaw.LOST, ("3",), version)]


async def test_a_lost_version_is_reported_with_the_batch_that_brought_it(loaded: Pipeline) -> None:
    ((batch, run),) = await loaded.select(f"DELETE {OF_THREE} AND last_updated_date = '2026-12-01' RETURNING _batch_id, _run")
    (problem,) = (await of_payment(loaded)).problems
    assert problem == FlawedVersion(Flaw.LOST, ("3",), SECOND, f"batch {batch} of run {run} brought it")


@pytest.mark.parametrize("batches_at_once", [1, 32])
async def test_a_version_doubled_under_another_last_updated_is_unknown(
    batches_at_once: int, loaded: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "GROUP_BATCHES", batches_at_once)
    await doubled(loaded, "last_updated_time = '23:59:59.999'")
    assert await found(loaded) == [("fact_payment", Flaw.UNKNOWN, ("3",), ("2026-12-02", "23:59:59.999"))]


async def test_a_version_doubled_under_its_own_last_updated_is_doubled(loaded: Pipeline) -> None:
    await without_uniqueness(loaded)
    await doubled(loaded, "")
    assert await found(loaded) == [("fact_payment", Flaw.DOUBLED, ("3",), THIRD)]


async def test_a_version_that_was_moved_is_lost_where_it_was_and_unknown_where_it_is(loaded: Pipeline) -> None:
    await loaded.select("UPDATE fact_payment SET last_updated_time = '11:00' WHERE last_updated_date = '2026-12-01'")
    assert await found(loaded) == [
        ("fact_payment", Flaw.LOST, ("3",), SECOND),
        ("fact_payment", Flaw.UNKNOWN, ("3",), ("2026-12-01", "11:00:00")),
    ]


async def test_a_row_of_a_batch_that_was_never_loaded_is_unknown(loaded: Pipeline) -> None:
    batch = uuid4()
    await doubled(loaded, f"last_updated_time = '23:59', _run = 1, _batch_id = '{batch}'")
    (problem,) = (await of_payment(loaded)).problems
    assert problem == FlawedVersion(Flaw.UNKNOWN, ("3",), ("2026-12-02", "23:59:00"), f"the ledger has no batch {batch}")


@pytest.mark.parametrize("change", ["_run - 1", "_run + 1"])
async def test_a_row_with_another_run_than_its_batch_is_named(change: str, loaded: Pipeline) -> None:
    await loaded.select(f"UPDATE fact_payment SET _run = {change} WHERE last_updated_date = '2026-12-02'")
    ((run,),) = await loaded.select(f"SELECT max(_run) {OF_THREE}")
    (problem,) = (await of_payment(loaded)).problems
    assert problem == FlawedVersion(
        Flaw.WRONG_RUN, ("3",), THIRD, f"_run is {run}, its batch is of run {(await runs(loaded))[-1]}"
    )


async def test_a_row_with_the_batch_id_of_another_batch_is_named_once(source: asyncpg.Connection, loaded: Pipeline) -> None:
    before = await loaded.select("SELECT _batch_id FROM fact_payment WHERE last_updated_date = '2026-12-02'")
    await source.execute("UPDATE payment SET payment_amount = 7 WHERE payment_id = 3")
    await loaded.run()
    await loaded.select("UPDATE fact_payment SET _batch_id = $1 WHERE last_updated_date = '2026-12-02'", *before[0])
    third, fourth = (await runs(loaded))[-2:]
    (problem,) = (await of_payment(loaded)).problems
    assert problem == FlawedVersion(Flaw.WRONG_RUN, ("3",), THIRD, f"_run is {fourth}, its batch is of run {third}")


async def test_a_row_that_a_later_batch_should_have_replaced_is_named(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """A correction that kept last_updated: the later run's image should have replaced the earlier one's."""
    before = await loaded.select("SELECT _run, _batch_id FROM fact_payment WHERE last_updated_date = '2026-12-02'")
    await source.execute("UPDATE payment SET payment_amount = 7 WHERE payment_id = 3")
    await loaded.run()
    assert (await checked(loaded)).is_complete
    await loaded.select("UPDATE fact_payment SET _run = $1, _batch_id = $2 WHERE last_updated_date = '2026-12-02'", *before[0])
    (problem,) = (await of_payment(loaded)).problems
    assert (problem.flaw, problem.key, problem.version) == (Flaw.WRONG_RUN, ("3",), THIRD)
    assert problem.detail.endswith(f"of run {(await runs(loaded))[-1]} brought it, its row is of a batch of run {before[0][0]}")


async def test_a_current_view_ordered_by_last_updated_is_named(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """A long transaction committed last with a smaller last_updated: its version is current."""
    late = ("2025-01-01", "08:00:00")
    await source.execute(PAID, 3, " ".join(late))
    await loaded.run()
    assert (await checked(loaded)).is_complete
    await replace_view(loaded, '"_run" DESC, ', "")
    assert await found(loaded) == [
        ("fact_payment", Flaw.NOT_CURRENT, ("3",), late),
        ("fact_payment", Flaw.WRONGLY_CURRENT, ("3",), THIRD),
    ]


async def test_a_view_that_shows_a_version_twice_is_named(loaded: Pipeline) -> None:
    once = "WHERE newest._deleted_at IS NULL"
    again = f"{once} UNION ALL (SELECT * FROM fact_payment WHERE payment_id = 4)"
    await replace_view(loaded, once, again)
    ((_, flaw, key, _),) = await found(loaded)
    assert (flaw, key) == (Flaw.WRONGLY_CURRENT, ("4",))


async def test_a_row_that_was_deleted_is_not_current_and_its_history_is_complete(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    await source.execute("DELETE FROM payment WHERE payment_id = 3")
    await loaded.run(Mode.FULL)
    assert await loaded.select(f"SELECT count(_deleted_at), count(*) {OF_THREE}") == [(1, 3)]
    assert await found(loaded) == []
    await replace_view(loaded, "WHERE newest._deleted_at IS NULL", "")
    assert await found(loaded) == [("fact_payment", Flaw.WRONGLY_CURRENT, ("3",), THIRD)]


async def test_expired_objects_are_reported_but_not_counted_as_lost(loaded: Pipeline) -> None:
    first = (await runs(loaded))[0]
    for key in await loaded.objects.keys(PROCESSED, SourceKeys(SOURCE).batch(first, 0).prefix):
        del loaded.objects.buckets[PROCESSED][key]
    await loaded.select("DELETE FROM fact_payment WHERE last_updated_date <> '2026-12-01' AND payment_id = 3")
    payments = await of_payment(loaded)
    ((loaded_at,),) = await loaded.select("SELECT loaded_at FROM starlift.ledger WHERE run = $1", first)
    assert (payments.batches, payments.unread_batches, payments.unread_until) == (2, 1, loaded_at)
    assert [(problem.flaw, problem.version) for problem in payments.problems] == [(Flaw.LOST, THIRD)]


async def test_an_object_that_does_not_match_its_hash_is_not_trusted(loaded: Pipeline) -> None:
    (key,) = await loaded.objects.keys(PROCESSED, f"{SourceKeys(SOURCE).batch((await runs(loaded))[1], 0).prefix}bundle-")
    loaded.objects.buckets[PROCESSED][key] += b"x"
    payments = await of_payment(loaded)
    assert (payments.batches, payments.unread_batches, payments.flawed) == (2, 1, 0)


async def test_the_object_with_the_loaded_number_of_rows_is_trusted(loaded: Pipeline) -> None:
    """The batch was remodelled by an earlier build, and again before it was loaded."""
    objects = loaded.objects.buckets[PROCESSED]
    first, second, _ = await runs(loaded)
    (many,) = await loaded.objects.keys(PROCESSED, f"{SourceKeys(SOURCE).batch(first, 0).prefix}bundle-")
    before = f"{SourceKeys(SOURCE).batch(second, 0).prefix}bundle-"
    (one,) = await loaded.objects.keys(PROCESSED, before)
    also = before + many.rpartition("-")[2]
    objects[also] = objects[many]
    payments = await of_payment(loaded)
    assert (payments.batches, payments.flawed) == (3, 0)
    del objects[one]
    assert (await of_payment(loaded)).unread_batches == 1


async def test_a_history_can_begin_anew_after_the_ledger_was_lost(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await loaded.select("TRUNCATE starlift.ledger")
    assert not (await checked(loaded)).is_complete
    await keep_baseline(loaded.system)
    verdict = await checked(loaded)  # earlier loads are accepted as they are
    assert (verdict.is_complete, [fact.batches for fact in verdict.facts]) == (True, [0, 0, 0])
    assert f"started over at {verdict.begun_at:%Y-%m-%d %H:%M:%S} UTC" in verdict.sentence
    await source.execute(PAID, 3, "2026-12-03 00:00:00")
    await loaded.run()
    assert ((await of_payment(loaded)).batches, await found(loaded)) == (1, [])
    await loaded.select(f"DELETE {OF_THREE} AND last_updated_date = '2026-12-03'")
    await doubled(loaded, "last_updated_time = '23:59', _run = 1")
    assert [(flaw, version) for _, flaw, _, version in await found(loaded)] == [
        (Flaw.LOST, ("2026-12-03", "00:00:00")),
        (Flaw.UNKNOWN, ("2026-12-02", "23:59:00")),
    ]


async def test_problems_beyond_the_named_ones_are_counted(loaded: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.operator.proof.history.NAMED_MAXIMUM", 2)
    await loaded.select("DELETE FROM fact_payment WHERE payment_id <= 5")
    payments = await of_payment(loaded)
    assert (len(payments.problems), payments.flawed) == (2, 7)


@begins_with(filled_totesys(orders=20))
async def test_keys_and_moments_of_versions_are_written_as_postgresql_writes_them(
    source: asyncpg.Connection, pipeline: Pipeline
) -> None:
    """The first and the last possible moment, one before 1970, and microseconds."""
    moments = ["0001-01-01 00:00:00", "1969-12-31 23:59:59.999", "9999-12-31 23:59:59.999"]
    for key, moment in enumerate(moments, start=1):
        await source.execute("UPDATE payment SET last_updated = $2::text::timestamp WHERE payment_id = $1", key, moment)
    await pipeline.run()
    assert (await checked(pipeline)).is_complete
    await pipeline.select("DELETE FROM fact_payment WHERE payment_id <= 3")
    named = [(problem.key, " ".join(problem.version)) for problem in (await of_payment(pipeline)).problems]
    assert named == [((str(key),), moment) for key, moment in enumerate(moments, start=1)]


@begins_with(filled_totesys(orders=20))
async def test_before_the_first_load_there_is_no_history(pipeline: Pipeline) -> None:
    with pytest.raises(PermanentError, match=r"the warehouse has no starlift\.ledger yet; load it first"):
        await checked(pipeline)
