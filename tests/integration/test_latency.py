from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg

from services.operator.local.latency import Watch, read_latency
from tests.fixtures.beginnings import begins_with, loaded_totesys
from tests.fixtures.pipeline import Pipeline

pytestmark = begins_with(loaded_totesys(orders=20))


async def pay(source: asyncpg.Connection, payment: int, hour: int) -> None:
    """Add a version of a payment."""
    await source.execute(
        f"UPDATE payment SET paid = NOT paid, last_updated = '2026-12-01 {hour}:00' WHERE payment_id = $1", payment
    )


async def test_every_version_is_recorded_once_with_the_time_it_was_first_seen(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    watch = Watch(loaded.contract, loaded.warehouse)
    await watch.look()
    ((facts,),) = await loaded.select(
        "SELECT (SELECT count(*) FROM fact_payment) + (SELECT count(*) FROM fact_sales_order) "
        "+ (SELECT count(*) FROM fact_purchase_order)"
    )
    assert len(watch.seen) == facts
    first = dict(watch.seen)
    await pay(source, 3, 10)
    await loaded.run()
    await watch.look()
    assert watch.seen.keys() - first.keys() == {("fact_payment", "3", "2026-12-01", "10:00:00")}
    await loaded.run()
    await watch.look()
    assert {version: watch.seen[version] for version in first} == first


async def test_latency_is_measured_from_commit_to_visibility(source: asyncpg.Connection, loaded: Pipeline) -> None:
    watch = Watch(loaded.contract, loaded.warehouse)
    await watch.look()
    began = datetime.now(UTC)
    assert await read_latency(loaded.contract, loaded.source, watch, began) is None
    await pay(source, 3, 10)
    await pay(source, 4, 10)
    await loaded.run()
    await watch.look()
    took = (datetime.now(UTC) - began).total_seconds()
    found = await read_latency(loaded.contract, loaded.source, watch, began)
    assert found is not None
    assert found.count == 2
    assert 0 < found.median <= found.worst <= took


async def test_versions_never_seen_or_committed_earlier_do_not_count(source: asyncpg.Connection, loaded: Pipeline) -> None:
    watch = Watch(loaded.contract, loaded.warehouse)
    began = datetime.now(UTC)
    await pay(source, 3, 10)
    await loaded.run()
    await watch.look()
    await pay(source, 4, 10)  # never loaded
    found = await read_latency(loaded.contract, loaded.source, watch, began)
    assert found is not None
    assert found.count == 1
    assert await read_latency(loaded.contract, loaded.source, watch, began + timedelta(hours=1)) is None
