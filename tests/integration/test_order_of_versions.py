"""Any order of deliveries of a data set with a version column gives the same warehouse: that of a model of six lines.

Two loaders load increments, whole snapshots, answers about rows that are gone, comparisons of keys and facts that refer to the
rows, in any order, some twice; then every question is answered. The argument is in services/loading/merge.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from contracts.warehouse import WHOLE_RUN
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.staging import FEW_ROWS
from services.loading.warehouse import Batch
from shared.errors import ServerBusyError, TransientError
from shared.postgres import Database
from shared.source_keys import Key
from tests.fixtures.plans import plan_for
from tests.fixtures.properties import examples
from tests.fixtures.shop_warehouse import Shop
from tests.fixtures.versioned_products import STAR, WITHOUT_VERSION, Held, Image, budgets, held, products

KEYS = range(1, 5)
BETWEEN = 10  # run numbers between two deliveries, for answers


@dataclass(frozen=True)
class Delivery:
    """What run `run` delivers, and the newest whole snapshot at it, by its run."""

    run: int
    whole_run: int
    images: Sequence[Image]

    @property
    def is_whole(self) -> bool:
        return self.run == self.whole_run


def expected(deliveries: Sequence[Delivery]) -> dict[object, Held]:
    """The greatest image of each key by (whole run, version, run), alive if the newest whole snapshot was not after it."""
    images = [(d.whole_run, version, d.run, key, name) for d in deliveries for key, version, name in d.images]
    newest = {key: (name, version, run) for _, version, run, key, name in sorted(images)}
    whole_run = max(delivery.whole_run for delivery in deliveries)
    return {key: Held(name, version, run, is_dead=run < whole_run) for key, (name, version, run) in newest.items()}


def is_there(deliveries: Sequence[Delivery], key: int, run: int) -> bool:
    """Whether a look-up of run `run` finds a key: in what was delivered since the newest whole snapshot."""
    until = [delivery for delivery in deliveries if delivery.run <= run]
    return any(key == image[0] for one in until if one.run >= until[-1].whole_run for image in one.images)


@st.composite
def histories(draw: st.DrawFn) -> list[Delivery]:
    """Deliveries in the order of their runs. Keys may come several times, each time with another version."""
    found, whole_run = list[Delivery](), 0
    for number in range(1, draw(st.integers(2, 6)) + 1):
        run, is_whole = number * BETWEEN, draw(st.sampled_from([False, False, True]))
        whole_run = run if is_whole else whole_run
        versions = draw(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(-2, 3)), max_size=5, unique=True))
        if is_whole:
            versions = list(dict(versions).items())
        found.append(Delivery(run, whole_run, [(key, version, f"{key} of {run}") for key, version in versions]))
    return found


def batches_of(deliveries: Sequence[Delivery], random: Random) -> list[Batch]:
    """Of each delivery one batch or two, now and then an answer about every key, and facts that refer to the rows."""
    found = [budgets(1, *random.sample(KEYS, 2))]
    for one in deliveries:
        cut = random.randint(0, len(one.images))
        if cut:
            found.append(products(one.run, one.whole_run, *one.images[:cut], is_last=False))
        found.append(products(one.run, one.whole_run, *one.images[cut:], is_whole=one.is_whole, index=int(cut > 0)))
        if random.random() < 0.5:
            run = one.run + random.randint(1, BETWEEN - 1)
            found.append(products(run, 0, gone=missing(deliveries, [(key,) for key in KEYS], run)))
    return found


def missing(deliveries: Sequence[Delivery], keys: Sequence[Key], run: int) -> list[Key]:
    return [key for key in dict.fromkeys(keys) if not is_there(deliveries, int(key[0]), run)]


@asynccontextmanager
async def two_loaders(url: str) -> AsyncIterator[list[Shop]]:
    """Two loaders of an empty star, of which one stages rows in temporary tables."""
    databases = [Database("warehouse", SecretStr(url), connections=4) for _ in range(2)]
    shops = [Shop(PostgresWarehouse(one, STAR, few_rows=few), one) for one, few in zip(databases, (FEW_ROWS, 0), strict=True)]
    try:
        await shops[0].warehouse.ensure_schema()
        async with databases[0].connection() as connection:
            names = [f"starlift.{name}" for name in ("ledger", "tombstone", "key_comparison", "question")]
            await connection.execute(f"TRUNCATE {', '.join([*names, *(table.name for table in STAR.stored_tables)])} CASCADE")
        yield shops
    finally:
        for one in databases:
            await one.aclose()


async def load_all(shops: Sequence[Shop], batches: Sequence[Batch], random: Random) -> None:
    """Load with both loaders at once, each taking the next batch, and now and then comparing keys."""
    waiting = list(batches)

    async def work(shop: Shop) -> None:
        while waiting:
            batch, compares = waiting.pop(), random.random() < 0.4
            await until_done(shop, batch)
            if compares:
                await shop.compare()

    await asyncio.gather(*map(work, shops))


async def until_done(shop: Shop, batch: Batch) -> None:
    """Load as the consumer does: retry a deadlock."""
    while True:
        try:
            await shop.load(batch)
        except (TransientError, ServerBusyError):
            await asyncio.sleep(0)
        else:
            return


async def loaded(url: str, deliveries: Sequence[Delivery], order: Random) -> dict[object, Held]:
    """The products once everything is loaded, compared and answered, without the members that facts have inferred."""
    batches = batches_of(deliveries, order)
    messages = [*batches, *order.sample(batches, len(batches) // 2)]
    order.shuffle(messages)
    async with two_loaders(url) as shops:
        await load_all(shops, messages, order)
        await shops[0].age()
        await shops[0].compare()
        asked = [key for shop in shops for question in shop.questions for key in question.keys]
        final = (len(deliveries) + 1) * BETWEEN
        await shops[0].load(products(final, 0, gone=missing(deliveries, asked, final)))
        return {key: row for key, row in (await held(shops[0].warehouse)).items() if row.run}


def test_any_order_and_any_repetition_gives_the_warehouse_of_the_model(warehouse_url: str) -> None:
    @given(histories(), st.randoms(use_true_random=False))
    @examples(30)
    def holds(deliveries: list[Delivery], order: Random) -> None:
        assert asyncio.run(loaded(warehouse_url, deliveries, order)) == expected(deliveries)

    holds()


async def test_a_table_that_gets_a_version_takes_every_image_of_the_full_read_that_follows(warehouse_url: str) -> None:
    """The column is added to a table with rows, whose images have counted by their runs so far."""
    async with aclosing(Database("warehouse", SecretStr(warehouse_url), connections=4)) as database:
        shop = Shop(PostgresWarehouse(database, WITHOUT_VERSION), database)
        await shop.load(products(1, 0, (1, 9, "first")))
        await shop.load(products(2, 0, (1, 5, "last")))
        assert (await held(shop.warehouse))[1].name == "last"
        shop = Shop(PostgresWarehouse(database, STAR), database)
        await shop.load(products(3, 3, (1, 4, "read in full")))
        assert (await held(shop.warehouse))[1] == Held("read in full", 4, 3, is_dead=False)
        await shop.load(products(4, 3, (1, 3, "older")))
        assert (await held(shop.warehouse))[1].name == "read in full"


async def test_a_table_whose_data_set_loses_its_version_keeps_the_column_and_counts_by_runs(warehouse_url: str) -> None:
    async with aclosing(Database("warehouse", SecretStr(warehouse_url), connections=4)) as database:
        await Shop(PostgresWarehouse(database, STAR), database).load(products(1, 0, (1, 9, "first")))
        changes = (await plan_for(WITHOUT_VERSION, warehouse=warehouse_url)).changes
        assert [change.name for change in changes if WHOLE_RUN in change.name or change.kind == "NOT NULL"] == []
        shop = Shop(PostgresWarehouse(database, WITHOUT_VERSION), database)
        await shop.load(products(2, 0, (1, 5, "last"), (2, 1, "new")))
        assert {key: row.name for key, row in (await held(shop.warehouse)).items()} == {1: "last", 2: "new"}
        shop = Shop(PostgresWarehouse(database, STAR), database)
        await shop.load(products(3, 3, (1, 4, "read in full"), (2, 0, "as well")))
        assert {key: row.name for key, row in (await held(shop.warehouse)).items()} == {1: "read in full", 2: "as well"}
