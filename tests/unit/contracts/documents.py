"""Documents about one small source."""

from __future__ import annotations

import pytest

from contracts.contract import Contract
from contracts.tables import Dimension, Fact, RemodelledTable
from contracts.yaml_text import ContractTextError, read_contract

SOURCE = """
source:
  tables:
    country:
      key: code
      columns: {code: varchar(2) not null, country_name: text not null, anthem: bytea}
    city:
      key: [country, number]
      columns: {country: varchar(2) not null, number: integer not null, city_name: text not null}
      foreign_keys: {country: country}
    customer:
      key: customer_id
      columns:
        customer_id: integer not null
        full_name: text not null
        "odd.name": text
        country: varchar(2)
        city_number: integer not null
        billing: varchar(2) not null
        limit: numeric
        state: enum('NEW', 'OLD') not null
        extra: jsonb not null
        password: text
      foreign_keys: {country: country, billing: country, "country, city_number": city}
    sale:
      key: sale_id
      columns:
        sale_id: bigint not null
        customer: integer not null
        sold_at: timestamp
        entered_at: timestamptz not null
        paid_at: timestamptz
      foreign_keys: {customer: customer}
    line:
      key: [sale_id, position]
      columns: {sale_id: bigint not null, position: integer not null, amount: "numeric(10,2) not null"}
      foreign_keys: {sale_id: sale}
"""


def contract(star: str, more: str = "") -> Contract:
    return read_contract(f"name: shop\n{more}star:\n{star}{SOURCE}", "shop.yaml")


def table(columns: str, base: str = "dimension: customer", more: str = "") -> RemodelledTable:
    text = "".join(f"      {column}\n" for column in columns.split("; "))
    found = contract(f"  t:\n    {base}\n{more}    columns:\n{text}").warehouse_tables[-1]
    assert isinstance(found, Dimension | Fact)
    return found


def problem(columns: str, base: str = "dimension: customer", more: str = "") -> str:
    with pytest.raises(ContractTextError) as caught:
        table(columns, base, more)
    return "; ".join(text for _, text in caught.value.problems)
