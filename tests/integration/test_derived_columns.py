"""A star with derived columns stays equal to its source, and its rows are those of a SELECT written by hand."""

from __future__ import annotations

from random import Random
from typing import Any

import asyncpg
import pytest

from contracts.contract import Contract
from contracts.messages import BatchRemodelled
from contracts.proofs import Outcome
from contracts.yaml_text import read_contract
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Mismatch
from shared.sql import literal, quoted
from tests.fixtures.pipeline import Pipeline
from tests.integration.plain_star import keys_in_quarantine, require_as_by_hand, require_equal

CONTRACT = """
name: derived
star:
  dim_date:
    calendar: {day: date}
  dim_customer:
    dimension: customer
    columns:
      customer_id:
      full_name: {sql: "COALESCE(first_name, '') || ' ' || COALESCE(trim(last_name), '(none)')", type: text}
      initials: {sql: 'left(first_name, 1) || left("last_name", 1)', type: varchar(2)}
      cohort: {sql: "date_trunc('quarter', since)::date", type: date}
      is_gone: {sql: "deleted_at IS NOT NULL", type: boolean}
      has_picture: {sql: "picture IS NOT NULL", type: boolean}
  fact_sale:
    fact: sale
    columns:
      sale_id:
      customer_id: {references: dim_customer}
      line_total:
        type: numeric(8,2)
        sql: |
          quantity * product_id.price   -- of the joined row
          * (1 - COALESCE(discount, 0))
      per_unit: {sql: "(product_id.price - cost::numeric(10,4)) / NULLIF(quantity, 0)", type: "numeric(18,6)"}
      boxes: {sql: "quantity / NULLIF(product_id.box, 0)", type: integer}
      size: {sql: "CASE WHEN quantity BETWEEN 1 AND 3 THEN 'few' WHEN NOT quantity > 0 THEN 'none' ELSE 'many' END", type: text}
      due: {sql: "sold_at::date + 30", type: date, references: dim_date}
      label: {sql: "replace(product_id.name, ',', ';') || ' #' || sale_id::text", type: text}
      hour: {sql: "EXTRACT(HOUR FROM sold_at)", type: integer}
source:
  tables:
    customer:
      key: customer_id
      columns:
        customer_id: integer not null
        first_name: text
        last_name: text
        since: date
        deleted_at: timestamptz
        picture: bytea
    product:
      key: product_id
      columns: {product_id: integer not null, name: text not null, price: "numeric(10,2)", box: smallint}
    sale:
      key: sale_id
      columns:
        sale_id: bigint not null
        customer_id: integer not null
        product_id: integer
        quantity: integer not null
        discount: numeric(3,2)
        cost: numeric
        sold_at: timestamp
      foreign_keys: {product_id: product}
"""
# `cost` has no bounds at the source, `first_name` has blanks at its end, and a product may be missing.
SCHEMA = """
CREATE TABLE customer (
    customer_id int PRIMARY KEY, first_name char(8), last_name varchar, since date, deleted_at timestamptz, picture bytea
);
CREATE TABLE product (product_id int PRIMARY KEY, name text NOT NULL, price numeric(10, 2), box smallint);
CREATE TABLE sale (
    sale_id bigint PRIMARY KEY, customer_id int NOT NULL, product_id int, quantity int NOT NULL, discount numeric(3, 2),
    cost numeric, sold_at timestamp
);
"""
ROWS = """
INSERT INTO customer VALUES (1, 'Ada', ' Byron ', '2026-05-17', NULL, NULL), (2, NULL, NULL, NULL, now(), '\\x00');
INSERT INTO product VALUES (1, 'Pen, blue', 1.25, 12), (2, 'Ink', 9.99, 0), (3, 'Void', NULL, NULL);
INSERT INTO sale VALUES
    (1, 1, 1, 3, 0.15, 0.5, '2026-01-31 23:59:59'), (2, 1, 2, 7, NULL, 1.3333, '2026-12-31'), (3, 2, 3, 0, 0.5, NULL, NULL),
    (4, 2, NULL, -4, NULL, 2, '2026-02-01 12:00'), (5, 2, 2, 25, 0.01, 0.0001, '2026-03-01 00:30');
"""
# As a person would ask the source, without a look at what is derived from the contract.
BY_HAND = {
    "dim_customer": """
        SELECT customer_id, coalesce(first_name::text, '') || ' ' || coalesce(btrim(last_name), '(none)'),
            left(first_name, 1) || left(last_name, 1), date_trunc('quarter', since::timestamp)::date, deleted_at IS NOT NULL,
            CASE WHEN picture IS NULL THEN false ELSE true END
        FROM customer
    """,
    "fact_sale": """
        SELECT s.sale_id, s.customer_id, round(s.quantity * p.price * (1 - coalesce(s.discount, 0)), 2),
            round((p.price - s.cost::numeric(30, 4)) / nullif(s.quantity, 0), 6), s.quantity / nullif(p.box, 0),
            CASE WHEN s.quantity >= 1 AND s.quantity <= 3 THEN 'few' WHEN s.quantity <= 0 THEN 'none' ELSE 'many' END,
            (s.sold_at + interval '30 days')::date, replace(p.name, ',', ';') || ' #' || s.sale_id, date_part('hour', s.sold_at)
        FROM sale s LEFT JOIN product p USING (product_id)
    """,
}


@pytest.fixture(scope="module")
def contract() -> Contract:
    return read_contract(CONTRACT, "derived.yaml")


@pytest.fixture
async def derived(owner: asyncpg.Connection, empty: Pipeline, contract: Contract) -> Pipeline:
    await owner.execute(SCHEMA)
    return empty.reading(contract)


async def test_derived_columns_of_a_dimension_a_fact_and_a_joined_row_are_equal(
    owner: asyncpg.Connection, derived: Pipeline
) -> None:
    await owner.execute(ROWS)
    await derived.run()
    assert await derived.select("SELECT full_name, initials, is_gone, has_picture FROM dim_customer ORDER BY customer_id") == [
        ("Ada Byron", "A ", False, False),
        (" (none)", None, True, True),
    ]
    totals = "SELECT line_total::text, boxes, size, label FROM fact_sale_current ORDER BY sale_id"
    assert await derived.select(totals) == [
        ("3.19", 0, "few", "Pen; blue #1"),
        ("69.93", None, "many", "Ink #2"),
        (None, None, "none", "Void #3"),
        (None, None, "none", None),
        ("247.25", None, "many", "Ink #5"),
    ]
    await require_as_by_hand(owner, derived, BY_HAND)
    await require_equal(derived)
    await owner.execute("UPDATE product SET price = 2, name = 'Pen' WHERE product_id = 1")
    await derived.run()
    assert await derived.select("SELECT line_total::text, label FROM fact_sale_current WHERE sale_id = 1") == [
        ("5.10", "Pen #1")
    ]
    await require_equal(derived)


async def test_a_corrupted_derived_value_is_found_and_repaired(owner: asyncpg.Connection, derived: Pipeline) -> None:
    await owner.execute(ROWS)
    await derived.run()
    others = {"text": "'corrupted'", "boolean": "NOT {0}", "date": "{0} - 1", "integer": "{0} + 1", "numeric": "{0} + 0.01"}
    for table in derived.contract.remodelled_tables:
        for column in table.columns:
            if column.name in {"initials", *table.key} or column.references is not None:
                continue
            name, key = quoted(column.name), quoted(table.key[0])
            other = others[column.type.family].format(name)
            await derived.select(f"UPDATE {table.name} SET {name} = {other} WHERE {key} = 1")
            verdict = await derived.verify()
            found = [(one.kind, one.key, list(one.columns)) for of in verdict.tables for one in of.differences]
            assert found == [(Mismatch.DIFFERENT, (1,), [column.name])]
            (wish,) = await plan_repair(derived.system, verdict)
            await derived.run(reread=wish.reread)
            await require_equal(derived)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("UPDATE sale SET quantity = 2000000000 WHERE sale_id = 1", {"fact_sale": [(1,)]}),  # the total
        ("UPDATE product SET price = 99999999.99 WHERE product_id = 2", {"fact_sale": [(2,), (5,)]}),
        ("UPDATE sale SET cost = 'NaN' WHERE sale_id = 1", {"fact_sale": [(1,)]}),
        ("UPDATE sale SET cost = 0.00001 WHERE sale_id = 1", {"fact_sale": [(1,)]}),  # not exactly a numeric(10,4)
        ("UPDATE sale SET sold_at = 'infinity' WHERE sale_id = 1", {"fact_sale": [(1,)]}),
        ("UPDATE sale SET sold_at = '10000-01-01' WHERE sale_id = 1", {"fact_sale": [(1,)]}),
        ("UPDATE sale SET sold_at = '9999-12-31' WHERE sale_id = 1", {"fact_sale": [(1,)]}),  # what is due after it
        ("UPDATE customer SET since = '5874897-12-31' WHERE customer_id = 1", {"dim_customer": [(1,)]}),
        ("UPDATE customer SET since = '4713-01-01 BC' WHERE customer_id = 1", {"dim_customer": [(1,)]}),
        ("UPDATE customer SET last_name = repeat('x', 100001) WHERE customer_id = 1", {"dim_customer": [(1,)]}),
    ],
)
async def test_a_row_whose_value_does_not_fit_is_quarantined_and_the_proof_does_not_raise(
    owner: asyncpg.Connection, derived: Pipeline, change: str, refused: dict[str, list[tuple[int]]]
) -> None:
    await owner.execute(ROWS)
    await derived.run()
    await owner.execute(change)
    await derived.run()
    assert await keys_in_quarantine(derived) == refused
    verdict = await derived.verify()
    assert [difference for table in verdict.tables for difference in table.differences] == []
    assert sum(table.quarantined for table in verdict.tables) == sum(map(len, refused.values()))


IDS = (1, 2, 3, None)
TEXTS = ("A", "", " b ", "ünïcode", "x,y,,z", "it's", None)
NUMBERS = (0, 1, -1, 7, 2**31 - 1, -(2**31), None)
VALUES: dict[str, tuple[Any, ...]] = {  # by column
    "first_name": (*TEXTS, "Ada     "),
    "last_name": TEXTS,
    "name": TEXTS,
    "since": ("0001-01-01", "9999-12-31", "2024-02-29", "infinity", "10000-01-01", None),
    "deleted_at": ("2026-01-01", "infinity", None),
    "picture": ("\\x00", "", None),
    "price": (0, "0.01", "-1.25", "99999999.99", None),
    "box": (0, 1, 12, -5, None),
    "quantity": NUMBERS,
    "discount": ("0.15", "-9.99", 1, None),
    "cost": ("0.0001", "-3", "1e30", "NaN", "0.00001", None),
    "sold_at": ("2026-01-02 03:04:05.000006", "0001-01-01", "9999-12-31 23:59:59.999999", "-infinity", None),
}


def random_change(contract: Contract, random: Random) -> str:
    """A statement that inserts, changes or deletes a row of any table; what it refers to may not exist."""
    table = random.choice(contract.source_tables)
    row = {
        column.name: random.choice([one for one in VALUES.get(column.name, IDS) if one is not None or column.nullable])
        for column in table.columns
    }
    names, (key,) = ", ".join(row), table.key
    values = {name: "NULL" if value is None else literal(str(value)) for name, value in row.items()}
    if random.random() < 0.2:
        return f"DELETE FROM {table.name} WHERE {key} = {values[key]}"
    changed = ", ".join(f"{name} = excluded.{name}" for name in row)
    return (
        f"INSERT INTO {table.name} ({names}) VALUES ({', '.join(values.values())}) ON CONFLICT ({key}) DO UPDATE SET {changed}"
    )


@pytest.mark.parametrize("seed", range(3))
async def test_any_changes_in_any_order_end_equal(owner: asyncpg.Connection, derived: Pipeline, seed: int) -> None:
    random, messages = Random(seed), list[BatchRemodelled]()  # noqa: S311 (repeatable on purpose)
    await owner.execute(ROWS)
    pipeline = derived.cut(random.choice([2, 100]))
    for _ in range(6):
        messages += await pipeline.read(compare_keys=random.random() < 0.3)
        for _ in range(random.randint(1, 8)):
            await owner.execute(random_change(pipeline.contract, random))
    messages += await pipeline.read(compare_keys=True)
    random.shuffle(messages)
    await pipeline.settle(await pipeline.load(*messages, *random.choices(messages, k=3)))
    verdict = await pipeline.verify()
    assert [difference for table in verdict.tables for difference in table.differences] == []
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 0)
    await require_as_by_hand(owner, pipeline, BY_HAND)
