"""The star of a dimension with history, and of a fact that shows it as of its time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from contracts.contract import Contract
from contracts.yaml_text import read_contract
from tests.fixtures.pipeline import Pipeline

SCHEMA = """
CREATE TABLE city (city_id int PRIMARY KEY, city_name text);
CREATE TABLE customer (customer_id int PRIMARY KEY, name text, city_id int, code text);
CREATE TABLE sale (sale_id int PRIMARY KEY, customer_id int, payer_id int, sold_at timestamp);
INSERT INTO city VALUES (1, 'Leeds'), (2, 'York');
INSERT INTO customer VALUES (1, 'Ada', 1, NULL), (2, 'Bob', NULL, 'x');
"""
DOCUMENT = """
name: shop
star:
  dim_customer:
    dimension: customer
    surrogate: customer_key
    history: true
    columns: {customer_id: , name: , city: city_id.city_name}
  fact_sale:
    fact: sale
    as_of: [sold_date, sold_time]
    columns:
      sale_id:
      customer_id: {references: dim_customer}
      payer_id: {references: dim_customer}
      sold_date: {date_of: sold_at}
      sold_time: {time_of: sold_at}
source:
  tables:
    city: {key: city_id, columns: {city_id: integer not null, city_name: text}}
    customer:
      key: customer_id
      columns: {customer_id: integer not null, name: text, city_id: integer, code: text}
      foreign_keys: {city_id: city}
    sale:
      key: sale_id
      columns: {sale_id: integer not null, customer_id: integer, payer_id: integer, sold_at: timestamp}
"""
NO_HISTORY = ("    history: true\n", ""), ("    as_of: [sold_date, sold_time]\n", "")
WITH_CODE = ("name: , city:", "name: , code: , city:")
NARROW_CODE = ("name: , city:", "name: , code: {type: varchar(3)}, city:")
HISTORY = """
SELECT customer_id, name, city, version, valid_from, valid_to, is_current FROM dim_customer_history
ORDER BY customer_id, version
"""
SEEN = """
SELECT customer_id, _run, name, city, _deleted_at IS NOT NULL AS is_deleted FROM dim_customer_versions
ORDER BY customer_id, _run
"""


def contract_with(*changes: tuple[str, str]) -> Contract:
    """The shop's contract, with some texts of its document replaced."""
    text = DOCUMENT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return read_contract(text, "shop.yaml")


async def histories(shop: Pipeline) -> list[tuple[Any, ...]]:
    """Key, name, city and number of each version, and whether it is current, after checking that no two overlap."""
    found = await shop.select(HISTORY)
    for one, following in pairwise(found):
        if one[0] == following[0]:
            assert one[5] is not None
            assert one[4] <= one[5] <= following[4]
    return [(*row[:4], row[6]) for row in found]
