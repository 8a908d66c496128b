"""The table of types in docs/contracts.md: each line is held against a source that has the types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from contracts.contract import Contract
from contracts.type_names import column_type
from contracts.yaml_text import read_contract
from services.operator.contract.catalog import CatalogTable, read_schemas
from services.operator.contract.source_part import source_part
from services.operator.contract.text import source_text
from tests.fixtures.pipeline import Pipeline
from tests.integration.plain_star import require_equal

DOCUMENT = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")
OWN_TYPES = """
CREATE SCHEMA enum_elsewhere; CREATE TYPE enum_elsewhere.mood AS ENUM ('so so', 'it''s');
GRANT USAGE ON SCHEMA enum_elsewhere TO PUBLIC;
CREATE DOMAIN posint AS integer CHECK (VALUE > 0);
CREATE TYPE pair AS (a integer, b text);
CREATE EXTENSION citext; CREATE EXTENSION hstore;
"""
VALUES = {  # a value of each type that the table names
    "smallint": "-32768",
    "integer": "-2147483648",
    "bigint": "9223372036854775807",
    "numeric(12,2)": "-9999999999.90",
    "numeric(38,4)": "1234567890123456789012345678901234.5000",
    "numeric(5,-2)": "1234500",
    "numeric": "1.500",
    "real": "0.1",
    "double precision": "-1.7976931348623157e308",
    "money": "-92233720368547758.08",
    "boolean": "true",
    "uuid": "5e1f1c1e-57a7-5c4e-8a3a-0d1f7a5e9b21",
    "text": "a'b\\\\ 🚚",
    "varchar(9)": " x ",
    "character(5)": "ab",
    "date": "0001-01-01",
    "timestamp": "9999-12-31 23:59:59.999999",
    "timestamptz": "2026-01-01 00:00:00.5+14",
    "timestamp(3)": "2026-01-01 00:00:00.123",
    "time": "23:59:59.999999",
    "timetz": "23:59:59-12:30",
    "interval": "-1 year 2 mons -3 days 04:05:06.000007",
    "bit(3)": "101",
    "bit varying(9)": "10",
    "integer[]": "{1,NULL,3}",
    "text[]": '[0:1]={"a,b",NULL}',
    "numeric(8,2)[]": "{{1.5,2},{3,4}}",
    "timestamptz[]": '{"2026-01-01 00:00+02"}',
    "int4range": "(1,3]",
    "numrange": "[1.50,)",
    "tstzrange": '["2026-01-01 00:00+01",infinity]',
    "json": '{"b": 1,  "a": [1.0]}',
    "jsonb": '{"b": 1, "a": [1.0]}',
    "xml": "<a b='1'>é</a>",
    "bytea": "\\x00ff",
    "inet": "::1/64",
    "cidr": "10.0.0.0/8",
    "macaddr": "08:00:2b:01:02:03",
    "oid": "4294967295",
    "pg_lsn": "16/B374D848",
    "tsvector": "'a':1 'cat':2A",
    "point": "(0.1,-1e300)",
    "polygon": "((0,0),(1,1),(0.1,2))",
    "enum_elsewhere.mood": "it's",
    "posint": "7",
    "citext": "A@b",
    "hstore": '"a"=>"1", "b"=>NULL',
    "pair": '(1,"x y")',
    "enum_elsewhere.mood[]": '{"so so",it\'s}',
    "posint[]": "{1,2}",
}
SPELLED_OTHERWISE = {"smallint": "integer", "text": "character varying", "varchar(9)": "character varying", "posint": "integer"}


def lines() -> Iterator[tuple[list[str], str, str]]:
    """The types of a line of the table, what they are in the star, and whether a key may hold them."""
    table = DOCUMENT.partition("| type of the source | in the star | in a key |\n|---|---|---|\n")[2].partition("\n\n")[0]
    for line in table.splitlines():
        types, becomes, key = (cell.strip() for cell in line.strip("|").split(" | "))
        yield re.findall(r"`([^`]+)`", types.partition(" (of ")[0].partition(" (a")[0]), becomes, key


def contract_of(table: CatalogTable, part: dict[str, dict[str, object]], **types: str) -> Contract:
    """A dimension with every column, as `starlift init` would copy it if it took them all; or with these `types`."""
    star = ["name: types", "star:", "  dim_t:", "    dimension: t", "    columns:"]
    for one in table.columns:
        kind = types.get(one.name) or ("text" if one.is_foreign and one.type.is_verbatim else None)
        star.append(f"      {one.name}:" + (f" {{type: '{kind}'}}" if kind else ""))
    return read_contract("\n".join([*star, source_text({"tables": part})]), "types.yaml")


async def test_every_line_of_the_table_of_types_is_true(owner: asyncpg.Connection, empty: Pipeline) -> None:
    described = list(lines())
    names = [name for types, _, _ in described for name in types]
    assert sorted(names) == sorted(VALUES)
    columns = {name: f"c{number}" for number, name in enumerate(names)}
    await owner.execute(OWN_TYPES)
    await owner.execute(
        f"CREATE TABLE t (id integer PRIMARY KEY, {', '.join(f'{column} {name}' for name, column in columns.items())})"
    )
    literals = ", ".join("'" + VALUES[name].replace("'", "''") + f"'::{name}" for name in columns)
    await owner.execute(f"INSERT INTO t VALUES (1, {literals}), (2{', NULL' * len(names)})")
    catalog = await read_schemas(empty.source, ["public"], include=["t"])
    contract = contract_of(catalog.tables["t"], source_part(catalog, ["t"]))
    pipeline = empty.reading(contract)
    await pipeline.run()
    await require_equal(pipeline)
    shown = "SELECT {} FROM {} WHERE id = 1"
    async with empty.source.transaction() as source, empty.warehouse.transaction() as warehouse:
        for types, becomes, key in described:
            for name in types:
                column = columns[name]
                text, kind = f"{column}::text", f"format_type(pg_typeof({column}), -1)"
                mine = await source.fetchrow(shown.format(f"{text}, {kind}", "t"))
                star = await warehouse.fetchrow(shown.format(f"{text}, {kind}", "dim_t"))
                assert mine is not None
                assert star is not None
                assert star[0] == mine[0].rstrip() if name.startswith("char") else star[0] == mine[0], name
                wanted = "character varying" if becomes.startswith("as text") else SPELLED_OTHERWISE.get(name, mine[1])
                assert star[1] == wanted, name
                may_be_key = catalog.tables["t"].column(column).may_be_key
                assert may_be_key is (key == "yes" or name == "posint"), name


async def test_types_of_ones_own_are_exact_where_the_warehouse_has_them(owner: asyncpg.Connection, empty: Pipeline) -> None:
    names = [name for types, becomes, _ in lines() if "if the warehouse has it" in becomes for name in types]
    assert names == ["citext", "hstore", "pair", "enum_elsewhere.mood[]", "posint[]"]
    await owner.execute(OWN_TYPES)
    async with empty.warehouse.connection() as warehouse:
        await warehouse.execute(OWN_TYPES)
    columns = {name: f"c{number}" for number, name in enumerate(names)}
    await owner.execute(
        f"CREATE TABLE t (id integer PRIMARY KEY, {', '.join(f'{column} {name}' for name, column in columns.items())})"
    )
    literals = ", ".join("'" + VALUES[name].replace("'", "''") + f"'::{name}" for name in columns)
    await owner.execute(f"INSERT INTO t VALUES (1, {literals})")
    catalog = await read_schemas(empty.source, ["public"], include=["t"])
    by_name = {column: "public.citext" if name == "citext" else name for name, column in columns.items()}
    pipeline = empty.reading(contract_of(catalog.tables["t"], source_part(catalog, ["t"]), **by_name))
    await pipeline.run()
    kinds = ", ".join(f"format_type(pg_typeof({column}), -1)" for column in columns.values())
    assert await pipeline.select(f"SELECT {kinds} FROM dim_t") == [tuple(names)]
    await require_equal(pipeline)


def test_a_type_that_no_test_can_have_is_spelled_as_the_table_says() -> None:
    assert "`geometry(Point,4326)`" in DOCUMENT
    assert column_type("geometry(Point,4326)").sql == "geometry(Point,4326)"
    assert column_type("extensions.geometry(Point,4326)").is_verbatim
