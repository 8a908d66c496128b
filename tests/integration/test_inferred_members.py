"""Inferred members that no fact refers to any more: no proof calls them extra, unless they were made by hand."""

from __future__ import annotations

import asyncpg
import pytest

from contracts.contract import Contract
from contracts.messages import Mode
from contracts.yaml_text import read_contract
from services.operator.proof.row_comparison import Mismatch
from tests.fixtures.pipeline import PROCESSED, Pipeline, Rows
from tests.integration.plain_star import differences, require_equal

SCHEMA = """
CREATE TABLE customer (customer_id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE tariff (price numeric(8, 2) PRIMARY KEY, name text);
CREATE TABLE sale (sale_id int PRIMARY KEY, customer_id int, payer int, price numeric(8, 2), sold_on date NOT NULL);
CREATE TABLE refund (refund_id int PRIMARY KEY, customer_id int);
INSERT INTO customer VALUES (1, 'Ada'), (2, 'Bob');
INSERT INTO tariff VALUES (1.5, 'cheap');
INSERT INTO sale VALUES (1, 1, 2, 1.5, '2026-03-01'), (2, 9, 2, 7.5, '2026-03-01'), (3, 2, 2, 7.5, '2026-03-01');
INSERT INTO refund VALUES (1, 1);
"""
DOCUMENT = """
name: shop
star:
  dim_customer: {dimension: customer, columns: {customer_id: , name: }}
  dim_tariff: {dimension: tariff, columns: {price: , name: }}
  fact_sale:
    fact: sale
    version: sold_on
    columns:
      sale_id:
      customer_id: {references: dim_customer}
      payer: {references: dim_customer}
      price: {references: dim_tariff}
      sold_on:
  fact_refund: {fact: refund, columns: {refund_id: , customer_id: {references: dim_customer}}}
source:
  tables:
    customer: {key: customer_id, columns: {customer_id: integer not null, name: text not null}}
    tariff: {key: price, columns: {price: "numeric(8,2) not null", name: text}}
    sale:
      key: sale_id
      columns: {sale_id: integer not null, customer_id: integer, payer: integer, price: "numeric(8,2)", sold_on: date not null}
    refund: {key: refund_id, columns: {refund_id: integer not null, customer_id: integer}}
"""
AS_OTHERS = "UPDATE sale SET customer_id = 1, price = 1.5"  # each in its version: nothing refers to customer 9 and price 7.5
MEMBERS = "SELECT customer_id, _deleted_at IS NOT NULL FROM dim_customer WHERE _run = 0 ORDER BY 1"
FORGE = "INSERT INTO dim_customer (customer_id, name, _run, _batch_id) VALUES (99, '(unknown)', 0, {})"


def contract() -> Contract:
    return read_contract(DOCUMENT, "shop.yaml")


@pytest.fixture
async def shop(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    await owner.execute(SCHEMA)
    return empty.reading(contract())


async def extra(shop: Pipeline) -> list[tuple[str, object]]:
    """The rows that a proof finds to be too many; there is no other difference."""
    found = differences(await shop.verify())
    assert {one.kind for _, one in found} <= {Mismatch.EXTRA}
    return [(table, one.key[0]) for table, one in found]


async def test_a_member_whose_last_reference_changed_in_its_version_is_not_extra(
    shop: Pipeline, owner: asyncpg.Connection
) -> None:
    await shop.run(compare_keys=True)  # in bulk: the end of the first load infers the members
    await owner.execute(AS_OTHERS)
    await shop.run()
    assert await shop.select(MEMBERS) == [(9, False)]
    await require_equal(shop)
    await owner.execute("UPDATE sale SET customer_id = 8")
    await shop.run()  # merged: the load infers the member
    await owner.execute(AS_OTHERS)
    await shop.run()
    assert await shop.select(MEMBERS) == [(8, False), (9, False)]
    await require_equal(shop)
    await shop.run(compare_keys=True)
    assert await shop.select(MEMBERS) == [(8, True), (9, True)]
    await require_equal(shop)
    await owner.execute("INSERT INTO customer VALUES (8, 'Eve'); UPDATE sale SET customer_id = 8")
    await shop.run()
    assert await shop.select(MEMBERS) == [(9, True)]
    await require_equal(shop)


async def test_a_reference_that_arrives_after_its_correction_leaves_a_member_that_is_not_extra(
    shop: Pipeline, owner: asyncpg.Connection
) -> None:
    await owner.execute("DELETE FROM sale")
    await shop.run()
    await owner.execute("INSERT INTO sale VALUES (2, 9, 8, 7.5, '2026-03-01')")
    before = await shop.read()
    await owner.execute("UPDATE sale SET customer_id = 1, payer = 1, price = 1.5")
    await shop.load(*await shop.read(), *before)
    assert await shop.select(MEMBERS) == [(8, False), (9, False)]
    await require_equal(shop)
    await shop.run(Mode.FULL)  # compares keys
    assert await shop.select(MEMBERS) == [(8, True), (9, True)]
    await require_equal(shop)


@pytest.mark.parametrize("batch", ["NULL", "gen_random_uuid()", "(SELECT batch_id FROM starlift.ledger ORDER BY run LIMIT 1)"])
async def test_a_member_made_by_hand_is_extra(batch: str, shop: Pipeline) -> None:
    """Nothing says who made it, or no load of that number did, or that load's facts refer to others."""
    await shop.run()
    await shop.select(FORGE.format(batch))
    assert await extra(shop) == [("dim_customer", 99)]


async def test_a_batch_vouches_for_the_members_of_its_own_references_alone(shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run()
    await owner.execute("UPDATE sale SET customer_id = 9, sale_id = 99 WHERE sale_id = 2")
    await shop.run()
    await shop.select(FORGE.format("(SELECT batch_id FROM starlift.ledger ORDER BY run DESC LIMIT 1)"))
    assert await extra(shop) == [("dim_customer", 99)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE dim_customer SET name = 'Eve' WHERE customer_id = 9",
        "UPDATE dim_customer SET _run = 1 WHERE customer_id = 9",
        "UPDATE dim_customer SET _batch_id = NULL WHERE customer_id = 9",
    ],
)
async def test_a_member_that_was_changed_by_hand_is_extra(change: str, shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run()
    await owner.execute(AS_OTHERS)
    await shop.run()
    await shop.select(change)
    assert await extra(shop) == [("dim_customer", 9)]


async def test_a_member_whose_mark_was_removed_by_hand_is_extra(shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run()
    await owner.execute(AS_OTHERS)
    await shop.run(compare_keys=True)
    assert await shop.select(MEMBERS) == [(9, True)]
    await shop.select("UPDATE dim_customer SET _deleted_at = NULL")
    assert await extra(shop) == [("dim_customer", 9)]


async def test_a_member_whose_batch_is_no_longer_kept_is_not_extra(shop: Pipeline, owner: asyncpg.Connection) -> None:
    """As of any row of a batch whose object is gone: the next comparison of keys marks it."""
    await shop.run()
    await owner.execute(AS_OTHERS)
    await shop.run()
    shop.objects.buckets[PROCESSED].clear()
    await require_equal(shop)


async def test_a_member_names_the_batch_that_first_referred_to_it(shop: Pipeline, owner: asyncpg.Connection) -> None:
    async def batches(key: int) -> Rows:
        return await shop.select(f"SELECT _batch_id FROM dim_customer WHERE customer_id = {key}")

    (first,) = await shop.run()
    assert await batches(9) == [(first.data.batch_id,)]
    await owner.execute("UPDATE refund SET customer_id = 7; UPDATE sale SET payer = 9 WHERE sale_id = 1")
    (second,) = await shop.run()
    assert (await batches(9), await batches(7)) == ([(first.data.batch_id,)], [(second.data.batch_id,)])
