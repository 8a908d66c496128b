"""The proof of data sets: a real warehouse against what was delivered, as manifests and extracts say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pandas as pd
import pytest

from contracts.proofs import Outcome
from contracts.state import Manifest
from infra.local.databases import LOADER, execute
from services.operator.contract.grants import warehouse_grants
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Both, Difference, Mismatch
from services.operator.quarantine import quarantined
from services.operator.trace.life import AtSource
from services.operator.trace.reading import read_life
from shared.errors import PermanentError
from shared.object_store import ObjectDamagedError, ObjectMissingError
from tests.fixtures.delivered import AT, frame_of_rows
from tests.fixtures.pipeline import open_pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.deliveries_stand import BUDGET, FIRST_BUDGET, PLANS, RATE, TARGET, Stand
from tests.integration.plain_star import differences, require_equal


@pytest.fixture
async def stand(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[Stand]:
    """A source without a database: what was delivered is read into a session of the warehouse."""
    url = postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(url, url, contract=PLANS, source_name="plans", clock=lambda: AT) as pipeline:
        found = Stand(pipeline)
        await found.load_first()
        yield found


async def test_a_star_that_has_what_was_delivered_is_equal(stand: Stand) -> None:
    verdict = await stand.pipeline.verify()
    assert (verdict.outcome, verdict.in_flight, verdict.quarantined, differences(verdict)) == (Outcome.EQUAL, 0, 0, [])
    assert {table.table: table.expected for table in verdict.tables} == {
        "dim_day": 2,
        "dim_rate": 3,
        "dim_target": 2,
        "fact_budget": 2,
    }
    assert "what was delivered until 2026-11-01 00:00" in verdict.sentence
    assert verdict.model_dump(mode="json")["delivered_until"] == "2026-11-01T00:00:00Z"


async def test_exactly_the_rows_that_differ_are_named_and_repaired_from_what_was_delivered(stand: Stand) -> None:
    await stand.pipeline.select("UPDATE fact_budget SET amount = 1 WHERE budget_id = 1")
    await stand.pipeline.select("DELETE FROM dim_rate WHERE currency = 'USD'")
    await stand.pipeline.select("INSERT INTO dim_target (staff, seq, sum, _run) VALUES ('Eve', 1, 1, 5)")
    await stand.proves(
        Outcome.DIFFERENT,
        ("dim_rate", Difference(Mismatch.MISSING, ("USD", "2024-02-29"))),
        ("dim_target", Difference(Mismatch.EXTRA, ("Eve",))),
        ("fact_budget", Difference(Mismatch.DIFFERENT, (1,), {"amount": Both("100.50", "1.00")})),
    )
    (wanted,) = await plan_repair(stand.pipeline.system, await stand.pipeline.verify())
    assert wanted.compare_keys
    assert {rows.table: rows.keys for rows in wanted.reread} == {"Rate": (("USD", "2024-02-29"),), "budget": ((1,),)}


async def test_a_day_that_the_calendar_lacks_is_repaired_by_a_row_that_refers_to_it(stand: Stand) -> None:
    await stand.pipeline.select("ALTER TABLE fact_budget DROP CONSTRAINT IF EXISTS fact_budget_day_fkey")
    await stand.pipeline.select("DELETE FROM dim_day WHERE day = '2024-03-01'")
    verdict = await stand.pipeline.verify()
    assert differences(verdict) == [("dim_day", Difference(Mismatch.MISSING, ("2024-03-01",)))]
    (wanted,) = await plan_repair(stand.pipeline.system, verdict)
    assert {rows.table: rows.keys for rows in wanted.reread} == {"budget": ((2,),)}


async def test_a_version_or_a_whole_snapshot_decides_which_row_counts(stand: Stand) -> None:
    await stand.load(await stand.deliver(TARGET, ("Bob", 4, 199)))
    await require_equal(stand.pipeline)
    await stand.load(await stand.deliver(TARGET, ("Ada", 2, 7), whole=True))
    await stand.load(await stand.deliver(TARGET, ("Ada", 1, 6), ("Cid", 1, 9)))
    found = await stand.pipeline.verify()
    assert (found.outcome, differences(found), found.in_flight + found.stuck) == (Outcome.PENDING, [], 1)  # Bob is gone
    assert await stand.pipeline.select("SELECT staff, sum FROM dim_target ORDER BY 1") == [("Ada", 7), ("Bob", 200), ("Cid", 9)]


async def test_a_whole_snapshot_counts_before_versions_although_its_run_was_killed(stand: Stand) -> None:
    batches = await stand.take(TARGET, frame_of_rows(TARGET, ("Ada", 2, 7), ("Bob", 3, 8)), whole=True, is_killed=True)
    await stand.load(batches)
    assert await stand.pipeline.select("SELECT staff, sum FROM dim_target ORDER BY 1") == [("Ada", 7), ("Bob", 8)]
    await require_equal(stand.pipeline)


async def test_rows_of_a_delivery_that_is_not_loaded_are_in_flight_and_then_stuck(stand: Stand) -> None:
    batches = await stand.deliver(RATE, ("CHF", 19782, 12000), ("EUR", 19782, 1))
    verdict = await stand.pipeline.verify()
    assert (verdict.outcome, verdict.in_flight, differences(verdict)) == (Outcome.EQUAL, 2, [])
    late = replace(stand.pipeline, clock=lambda: AT + pd.Timedelta(hours=1))
    overdue = await late.verify()
    assert (overdue.outcome, overdue.stuck) == (Outcome.PENDING, 2)
    assert "run 6 is overdue" in overdue.sentence
    await stand.load(batches)
    await require_equal(stand.pipeline)


async def test_a_row_with_a_value_that_could_not_be_read_is_in_quarantine_until_a_later_delivery(stand: Stand) -> None:
    frame = frame_of_rows(RATE, ("EUR", 19783, None), ("SEK", 19783, None))
    frame[RATE.defect] = "rate is not a number: 'x'"
    await stand.load(await stand.take(RATE, frame))
    await require_equal(stand.pipeline, quarantined=2)
    assert [entry.key for entry in await quarantined(stand.pipeline.system)] == [("EUR", "2024-03-01"), ("SEK", "2024-03-01")]
    await stand.load(await stand.deliver(RATE, ("EUR", 19783, 5), ("SEK", 19783, 6)))
    await require_equal(stand.pipeline)
    assert await quarantined(stand.pipeline.system) == []


async def test_a_refused_row_is_in_quarantine_until_a_greater_version_comes(stand: Stand) -> None:
    """A lower version neither settles it nor is one that is still to be loaded."""
    frame = frame_of_rows(TARGET, ("Ada", 8, None))
    frame[TARGET.defect] = "sum is not a number: 'x'"
    await stand.load(await stand.take(TARGET, frame))
    await stand.load(await stand.deliver(TARGET, ("Ada", 7, 102)))
    await require_equal(stand.pipeline, quarantined=1)
    await stand.load(await stand.deliver(TARGET, ("Ada", 9, 103)))
    frame = frame_of_rows(TARGET, ("Ada", 4, None), ("Bob", 4, None))
    frame[TARGET.defect] = "sum is not a number: 'x'"
    await stand.load(await stand.take(TARGET, frame))
    await require_equal(stand.pipeline)
    assert await quarantined(stand.pipeline.system) == []
    await stand.load(await stand.take(TARGET, frame, whole=True))
    await require_equal(stand.pipeline, quarantined=2)


async def test_a_value_that_could_not_be_read_does_not_equal_null(stand: Stand) -> None:
    frame = frame_of_rows(BUDGET, *FIRST_BUDGET)
    frame.loc[1, BUDGET.defect] = "amount is not a number: 'x'"
    await stand.load(await stand.take(BUDGET, frame, whole=True))
    await require_equal(stand.pipeline, quarantined=1)


async def test_a_missing_or_changed_extract_is_named_and_no_row_is_extra(stand: Stand) -> None:
    (key,) = (key for key in stand.landing if re.search(r"runs/0*4/.*Rate", key))
    body = stand.landing.pop(key)
    with pytest.raises(ObjectMissingError, match=f"'landing/{re.escape(key)}'.*deliver a whole snapshot of 'Rate'"):
        await stand.pipeline.verify()
    stand.landing[key] = body[:-9] + b"x" + body[-8:]
    with pytest.raises(ObjectDamagedError, match=f"'landing/{re.escape(key)}'.*deliver a whole snapshot of 'Rate'"):
        await stand.pipeline.verify()


async def test_rows_of_a_run_without_a_manifest_are_neither_extra_nor_different(stand: Stand) -> None:
    stand.landing.pop(stand.pipeline.store.keys.manifest(4))
    verdict = await stand.pipeline.verify()
    assert (verdict.outcome, differences(verdict), verdict.stuck) == (Outcome.PENDING, [], 2)
    ((reason, rows),) = verdict.reasons.items()
    assert (rows, reason.partition(": ")[0]) == (
        2,
        "what run 4 delivered can't be proved without its manifest 'plans/manifests/00000000000000000004.json'",
    )


async def test_a_manifest_that_was_changed_is_found_by_the_ledger(stand: Stand) -> None:
    key = stand.pipeline.store.keys.manifest(4)
    manifest = Manifest.model_validate_json(stand.landing[key])
    (other,) = (await stand.pipeline.store.read_manifest(2)).batches
    (batch,) = manifest.batches
    data = batch.data.model_copy(update={"extracts": other.data.extracts})
    changed = manifest.model_copy(update={"batches": (batch.model_copy(update={"data": data}),)})
    stand.landing[key] = changed.model_dump_json().encode()
    with pytest.raises(PermanentError, match="of run 4 was loaded from extracts that the run's manifest does not name"):
        await stand.pipeline.verify()


async def test_a_prover_who_may_not_create_temporary_tables_learns_what_to_grant(
    stand: Stand, postgres_cluster: TestCluster, warehouse_database: str
) -> None:
    prover, analyst = (f"{name}_{uuid4().hex[:6]}" for name in ("prover", "analyst"))
    database = replace(PLANS, source_tables=tuple(replace(table, dataset=None) for table in PLANS.source_tables))
    admin, url = postgres_cluster.url(warehouse_database), postgres_cluster.url(warehouse_database, prover)
    try:
        execute(admin, warehouse_grants(database, LOADER, prover, analyst))
        execute(admin, f"ALTER ROLE {prover} PASSWORD '{postgres_cluster.password(prover)}'")
        async with open_pipeline(url, url, contract=PLANS, source_name="plans", objects=stand.pipeline.objects) as proving:
            with pytest.raises(
                PermanentError, match=r"needs temporary tables.*may not create any; run the SQL of `starlift grants warehouse`"
            ):
                await proving.verify()
            execute(admin, warehouse_grants(PLANS, LOADER, prover, analyst))
            await require_equal(proving)
        execute(admin, f"ALTER ROLE {prover} SET default_transaction_read_only = on")
        async with open_pipeline(url, url, contract=PLANS, source_name="plans", objects=stand.pipeline.objects) as reading:
            with pytest.raises(PermanentError, match="transactions are read-only here; point STARLIFT_WAREHOUSE_URL at the"):
                await reading.verify()
    finally:
        execute(admin, *(f"DROP OWNED BY {role}; DROP ROLE {role}" for role in (prover, analyst)))


async def test_trace_says_whether_a_row_was_delivered(stand: Stand) -> None:
    await stand.pipeline.select("DELETE FROM dim_rate WHERE currency = 'USD'")
    system = stand.pipeline.system
    assert (await read_life(system, "dim_rate", ["USD", "2024-02-29"])).at_source is AtSource.READ
    assert (await read_life(system, "dim_rate", ["CHF", "2024-02-29"])).at_source is AtSource.NOWHERE
