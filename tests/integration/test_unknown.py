"""The row that stands for no row: facts refer to it where their reference is NULL, and nothing ever deletes it."""

from __future__ import annotations

import asyncpg
import pytest

from contracts.contract import Contract
from contracts.messages import Mode
from contracts.proofs import Outcome
from contracts.yaml_text import read_contract
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Mismatch
from tests.fixtures.pipeline import Pipeline
from tests.integration.plain_star import differences, require_equal

NOBODY = "00000000-0000-0000-0000-000000000000"
SCHEMA = """
CREATE TABLE customer (customer_id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE city (code varchar(5) PRIMARY KEY, name text NOT NULL);
CREATE TABLE device (device_id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE season (starts date PRIMARY KEY, name text NOT NULL);
CREATE TABLE visit (visit_id int PRIMARY KEY, customer_id int);
CREATE TABLE sale (
    sale_id int PRIMARY KEY, customer_id int, visit_id int, city varchar(5), device uuid, season date, sold_at timestamp
);
INSERT INTO customer VALUES (1, 'Ada'), (2, 'Bob');
INSERT INTO city VALUES ('L', 'Leeds');
INSERT INTO device VALUES ('6f9619ff-8b86-d011-b42d-00c04fc964ff', 'till');
INSERT INTO season VALUES ('2026-03-01', 'spring');
INSERT INTO visit VALUES (1, 1), (2, NULL);
INSERT INTO sale VALUES
    (1, 1, 1, 'L', '6f9619ff-8b86-d011-b42d-00c04fc964ff', '2026-03-01', '2026-03-01 12:00'),
    (2, NULL, NULL, NULL, NULL, NULL, NULL), (3, 2, 2, NULL, NULL, NULL, NULL), (4, 9, 9, 'L', NULL, NULL, '1900-01-01');
"""
DOCUMENT = f"""
name: shop
star:
  dim_customer:
    dimension: customer
    surrogate: customer_key
    history: true
    unknown: -1
    columns: {{customer_id: , name: }}
  dim_city: {{dimension: city, unknown: none, columns: {{code: , name: }}}}
  dim_device: {{dimension: device, unknown: {NOBODY}, columns: {{device_id: , name: }}}}
  dim_season: {{dimension: season, unknown: 1900-01-01, columns: {{starts: , name: }}}}
  fact_sale:
    fact: sale
    as_of: sold_at
    columns:
      sale_id:
      customer_id: {{references: dim_customer}}
      visitor: {{from: visit_id.customer_id, references: dim_customer}}
      payer: {{sql: "NULLIF(customer_id, 2)", type: integer, references: dim_customer}}
      city: {{references: dim_city}}
      device: {{references: dim_device}}
      season: {{references: dim_season}}
      sold_on: {{date_of: sold_at, references: dim_season}}
      sold_at:
source:
  tables:
    customer: {{key: customer_id, columns: {{customer_id: integer not null, name: text not null}}}}
    city: {{key: code, columns: {{code: varchar(5) not null, name: text not null}}}}
    device: {{key: device_id, columns: {{device_id: uuid not null, name: text not null}}}}
    season: {{key: starts, columns: {{starts: date not null, name: text not null}}}}
    visit: {{key: visit_id, columns: {{visit_id: integer not null, customer_id: integer}}}}
    sale:
      key: sale_id
      columns:
        sale_id: integer not null
        customer_id: integer
        visit_id: integer
        city: varchar(5)
        device: uuid
        season: date
        sold_at: timestamp
      foreign_keys: {{visit_id: visit}}
"""
JOINED = """
SELECT s.sale_id, c.name, v.name, p.name, y.name, d.name, e.name, o.name FROM fact_sale_current AS s
JOIN dim_customer AS c ON c.customer_id = s.customer_id JOIN dim_customer AS v ON v.customer_id = s.visitor
JOIN dim_customer AS p ON p.customer_id = s.payer JOIN dim_city AS y ON y.code = s.city
JOIN dim_device AS d ON d.device_id = s.device JOIN dim_season AS e ON e.starts = s.season
JOIN dim_season AS o ON o.starts = s.sold_on ORDER BY s.sale_id
"""
U = "(unknown)"
EVERY_SALE = [
    (1, "Ada", "Ada", "Ada", "Leeds", "till", "spring", "spring"),
    (2, U, U, U, U, U, U, U),
    (3, "Bob", U, U, U, U, U, U),
    (4, U, U, U, "Leeds", U, U, U),
]
NULLABLE = """
SELECT column_name FROM information_schema.columns WHERE table_name = 'fact_sale' AND is_nullable = 'YES'
AND column_name !~ '^_' ORDER BY 1
"""
NOBODY_ALIVE = "SELECT name, _run FROM dim_customer WHERE customer_id = -1 AND _deleted_at IS NULL"


def contract_with(*changes: tuple[str, str]) -> Contract:
    """The shop's contract, with some texts of its document replaced."""
    text = DOCUMENT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return read_contract(text, "shop.yaml")


@pytest.fixture
async def shop(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    await owner.execute(SCHEMA)
    return empty.reading(contract_with())


async def test_an_inner_join_has_every_row_of_a_fact(shop: Pipeline) -> None:
    await shop.run()
    assert await shop.select(JOINED) == EVERY_SALE
    assert await shop.select(NULLABLE) == [("sold_at",)]
    assert await shop.select("SELECT payer, season::text FROM fact_sale WHERE sale_id = 2") == [(-1, "1900-01-01")]
    await require_equal(shop)


async def test_merging_gives_the_same_rows_as_a_bulk_load(shop: Pipeline) -> None:
    await shop.run()
    in_bulk = await shop.dump(with_runs=False)
    await shop.empty_warehouse()
    await shop.select("CREATE PUBLICATION without_bulk FOR TABLE fact_sale")
    (message,) = await shop.read(Mode.FULL)
    await shop.load(message)
    await shop.select("DROP PUBLICATION without_bulk")
    numbers = {"dim_customer"}  # surrogates
    merged = await shop.dump(with_runs=False)
    assert {name: rows for name, rows in merged.items() if name not in numbers} == {
        name: rows for name, rows in in_bulk.items() if name not in numbers
    }
    assert await shop.select(JOINED) == EVERY_SALE
    await require_equal(shop)


async def test_it_stays_when_nothing_refers_to_it(shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run(compare_keys=True)
    assert await shop.select(NOBODY_ALIVE) == [(U, 0)]
    await owner.execute("UPDATE visit SET customer_id = 1; UPDATE sale SET customer_id = 1, visit_id = 1")
    await shop.run(compare_keys=True)
    assert await shop.select("SELECT FROM fact_sale WHERE -1 IN (customer_id, visitor, payer)") == []
    questions = await shop.load(*await shop.read(compare_keys=True))
    assert questions == []
    assert await shop.select(NOBODY_ALIVE) == [(U, 0)]
    await require_equal(shop)
    await owner.execute("UPDATE sale SET customer_id = NULL WHERE sale_id = 1")
    await shop.run()
    assert await shop.select(NOBODY_ALIVE) == [(U, 0)]
    await require_equal(shop)


async def test_a_proof_finds_what_was_changed_by_hand(shop: Pipeline) -> None:
    await shop.run()
    await shop.select("UPDATE fact_sale SET payer = 1 WHERE sale_id = 2")
    await shop.select("UPDATE dim_customer SET name = 'Nobody' WHERE customer_id = -1")
    await shop.select(f"UPDATE dim_device SET _run = 1 WHERE device_id = '{NOBODY}'")
    found = differences(await shop.verify())
    assert [(table, one.kind, one.key, list(one.columns)) for table, one in found] == [
        ("dim_customer", Mismatch.EXTRA, (-1,), []),
        ("dim_device", Mismatch.EXTRA, (NOBODY,), []),
        ("fact_sale", Mismatch.DIFFERENT, (2,), ["payer"]),
    ]


@pytest.mark.parametrize("change", ["name = 'Nobody'", "_run = 1", "_run = 1, name = 'Nobody', _batch_id = NULL"])
async def test_a_repair_restores_it(change: str, shop: Pipeline) -> None:
    await shop.run()
    await shop.select(f"UPDATE dim_customer SET {change} WHERE customer_id = -1")
    assert [(table, one.kind) for table, one in differences(await shop.verify())] == [("dim_customer", Mismatch.EXTRA)]
    for wanted in await plan_repair(shop.system, await shop.verify()):
        await shop.run(reread=wanted.reread, compare_keys=wanted.compare_keys)
    assert await shop.select(NOBODY_ALIVE) == [(U, 0)]
    assert await shop.select(JOINED) == EVERY_SALE
    await require_equal(shop)
    await shop.select("UPDATE dim_customer SET _deleted_at = now() WHERE customer_id = -1")
    await shop.run(compare_keys=True)
    assert await shop.select(NOBODY_ALIVE) == [(U, 0)]


async def test_a_real_row_with_the_key_takes_its_place(shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run()
    await owner.execute("INSERT INTO customer VALUES (-1, 'Eve')")
    await shop.run(compare_keys=True)
    ((name, run),) = await shop.select(NOBODY_ALIVE)
    assert (name, run > 0) == ("Eve", True)
    await require_equal(shop)
    await owner.execute("DELETE FROM customer WHERE customer_id = -1")
    await shop.run(compare_keys=True)
    assert await shop.select(NOBODY_ALIVE) == []
    assert (await shop.verify()).outcome is Outcome.EQUAL


async def test_a_star_that_is_loaded_already_gets_the_row(shop: Pipeline) -> None:
    before = shop.reading(contract_with(("    unknown: -1\n", "")))
    await before.run()
    await require_equal(before)
    assert await before.select("SELECT customer_id FROM fact_sale WHERE sale_id = 2") == [(None,)]
    await shop.run()
    assert await shop.select(JOINED) == EVERY_SALE
    assert await shop.select(NULLABLE) == [("customer_id",), ("payer",), ("sold_at",), ("visitor",)]
    await require_equal(shop)
    await before.run()  # the earlier contract again: the row goes
    await before.run(compare_keys=True)
    assert await before.select(NOBODY_ALIVE) == []
    await require_equal(before)
