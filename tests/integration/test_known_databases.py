"""Northwind and Chinook: the star that `starlift init` proposes for them equals SELECTs that were written by hand."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from contracts.type_names import type_name
from contracts.yaml_text import read_contract
from services.operator.contract.catalog import Catalog, read_schemas
from services.operator.contract.propose import propose
from shared.sql import quoted
from tests.fixtures import by_hand
from tests.fixtures.pipeline import Pipeline
from tests.integration.plain_star import require_as_by_hand, require_equal
from tests.unit.services.operator.contract.catalogs import CHINOOK, NORTHWIND

VALUES = {"date": "date '2026-01-01' + n", "timestamp": "timestamp '2026-01-01' + n * interval '1 hour'", "bytea": "'x'::bytea"}


def statements(found: Catalog) -> Iterator[str]:
    """The tables of a catalog, with ten rows each, and the foreign keys."""
    for table in found.tables.values():
        relation = quoted(found.schema, table.name)
        types = [f"{quoted(one.name)} {type_name(one.type)}{'' if one.nullable else ' NOT NULL'}" for one in table.columns]
        yield f"CREATE TABLE {relation} ({', '.join(types)}, PRIMARY KEY ({', '.join(map(quoted, table.key))}))"
        values = [VALUES.get(one.spelled, f"(1 + n % 10)::text::{type_name(one.type)}") for one in table.columns]
        yield f"INSERT INTO {relation} SELECT {', '.join(values)} FROM generate_series(1, 10) AS n"
    for table in found.tables.values():
        for link in table.foreign_keys:
            columns, target = ", ".join(map(quoted, link.columns)), quoted(found.schema, link.table)
            yield f"ALTER TABLE {quoted(found.schema, table.name)} ADD FOREIGN KEY ({columns}) REFERENCES {target}"


@pytest.mark.parametrize(
    ("shape", "selects", "changes"),
    [
        (NORTHWIND, by_hand.NORTHWIND, by_hand.NORTHWIND_CHANGES),
        (CHINOOK, by_hand.CHINOOK, by_hand.CHINOOK_CHANGES),
    ],
    ids=["northwind", "chinook"],
)
async def test_a_well_known_database_is_read_as_it_was_made_proposed_loaded_and_proved(
    owner: asyncpg.Connection, empty: Pipeline, shape: Catalog, selects: dict[str, str], changes: str
) -> None:
    await owner.execute(";".join(statements(shape)))
    found = await read_schemas(empty.source, ["public"])
    assert list(found.tables) == list(shape.tables)
    for table, made in zip(found.tables.values(), shape.tables.values(), strict=True):
        assert (table.key, set(table.foreign_keys)) == (made.key, set(made.foreign_keys))
        assert [(one.name, one.type, one.nullable) for one in table.columns] == [
            (one.name, one.type, one.nullable) for one in made.columns
        ]
    shop = empty.reading(read_contract(propose(found, "proposed"), "proposed.yaml"))
    await shop.run()
    await require_equal(shop)
    await require_as_by_hand(owner, shop, selects)
    await owner.execute(changes)
    await shop.run(compare_keys=True)
    await require_equal(shop)
    await require_as_by_hand(owner, shop, selects)
