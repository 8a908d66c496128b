"""A shop with more than its contract reads, and its databases as roles with few rights see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from contracts.contract import Contract
from contracts.yaml_text import read_contract
from tests.fixtures.postgres_cluster import TestCluster

SCHEMA = """
CREATE SCHEMA "The Floor";
CREATE TABLE city (city_id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE customer (customer_id int PRIMARY KEY, name text NOT NULL, city_id int REFERENCES city, password_hash text);
CREATE TABLE sale (sale_id int PRIMARY KEY, customer_id int, sold_on date NOT NULL, note text);
CREATE TABLE "The Floor"."Shelf" (shelf_id int PRIMARY KEY, label text, later text);
CREATE VIEW big_sale AS SELECT * FROM sale WHERE sale_id > 1;
CREATE TABLE visit (seen_on date, place text);
CREATE TABLE payroll (salary int);
INSERT INTO city VALUES (1, 'Leeds');
INSERT INTO customer VALUES (1, 'Ada', 1, 'secret'), (2, 'Bob', NULL, 'secret');
INSERT INTO sale VALUES (1, 1, '2026-03-01', 'secret'), (2, 9, '2026-03-02', NULL);
INSERT INTO "The Floor"."Shelf" VALUES (1, 'top', 'x');
INSERT INTO visit VALUES ('2026-03-01', 'till'), ('2026-03-01', 'till');
"""
DOCUMENT = """
name: shop
warehouse_schema: The Star
carry: [Shelf]
star:
  dim_customer:
    dimension: customer
    history: true
    unknown: -1
    surrogate: customer_key
    columns: {customer_id: , name: , city: city_id.name}
  dim_shelf: {dimension: Shelf, columns: {shelf_id: , label: }}
  dim_date: {calendar: {day: date}}
  fact_sale:
    fact: sale
    version: sold_on
    where: sale_id > 0
    columns: {sale_id: , customer_id: {references: dim_customer}, sold_on: {references: dim_date}}
  fact_big_sale: {fact: big_sale, columns: {sale_id: , sold_on: }}
  fact_visit: {fact: visit, columns: {row_id: , place: }}
source:
  tables:
    city: {key: city_id, columns: {city_id: integer not null, name: text not null}}
    customer:
      key: customer_id
      columns: {customer_id: integer not null, name: text not null, city_id: integer}
      foreign_keys: {city_id: city}
    sale: {key: sale_id, columns: {sale_id: integer not null, customer_id: integer, sold_on: date not null}}
    Shelf: {schema: The Floor, key: shelf_id, columns: {shelf_id: integer not null, label: text}}
    big_sale: {full: true, key: sale_id, columns: {sale_id: integer, sold_on: date}}
    visit: {full: true, row_id: row_id, columns: {place: text}}
"""
ANOTHER_TABLE = "  fact_late: {fact: sale, columns: {sale_id: }}\nsource:\n"
CHANGES = """
INSERT INTO city VALUES (2, 'Hull'); UPDATE customer SET city_id = 2 WHERE customer_id = 2;
INSERT INTO sale VALUES (3, NULL, '2026-03-03', NULL); DELETE FROM sale WHERE sale_id = 1;
INSERT INTO visit VALUES (NULL, 'door');
"""


@dataclass(frozen=True)
class Place:
    """Two databases with their administrators, who are no superusers, and roles that exist once the SQL has run."""

    cluster: TestCluster
    source: str
    warehouse: str
    path: Path  # of the contract
    prefix: str

    def role(self, name: str) -> str:
        return f'{self.prefix} "{name}" $$'  # a name that means something in SQL

    def url(self, database: str, name: str) -> str:
        return self.cluster.url(self.source if database == "source" else self.warehouse, self.role(name))

    @asynccontextmanager
    async def session(self, database: str, name: str) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url(database, name))
        try:
            yield connection
        finally:
            await connection.close()

    async def execute(self, database: str, name: str, *statements: str) -> None:
        async with self.session(database, name) as session:
            for statement in statements:
                await session.execute(statement)

    async def refuses(self, database: str, name: str, *statements: str) -> None:
        """Require that the role may run none of the statements."""
        async with self.session(database, name) as session:
            for statement in statements:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await session.execute(statement)


def contract(text: str = DOCUMENT) -> Contract:
    return read_contract(text, "shop.yaml")
