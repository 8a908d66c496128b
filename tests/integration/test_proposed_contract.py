"""`starlift init` on databases that are not totesys: what it writes runs as it is, and the proof finds it equal."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from contracts.yaml_text import read_contract
from infra.local.databases import READER
from services.operator.contract.catalog import read_schemas
from services.operator.contract.propose import propose
from shared.sql import quoted
from tests.fixtures import by_hand
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.command import Answer, run_starlift
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.plain_star import require_as_by_hand, require_equal

RENTAL_SHOP = (Path(__file__).parents[1] / "fixtures" / "rental_shop.sql").read_text(encoding="utf-8")
KINDS = """
CREATE SCHEMA "Other"; CREATE TYPE "Other"."Mood" AS ENUM ('so: so', 'it''s');
CREATE DOMAIN short AS varchar(9) NOT NULL; CREATE DOMAIN shorter AS short CHECK (length(VALUE) < 5);
CREATE TABLE "Other".far (id integer PRIMARY KEY);
CREATE TABLE near (id integer PRIMARY KEY, code text UNIQUE NOT NULL, alias text NOT NULL);
CREATE UNIQUE INDEX ON near (alias) WHERE id > 5;
CREATE TABLE kinds (
    id uuid NOT NULL UNIQUE, at timestamp(3), t time, d shorter, m "Other"."Mood", ms "Other"."Mood"[], c character(3),
    r int4range,
    n numeric, big numeric(30, 2), near_code text REFERENCES near (code), far_id integer REFERENCES "Other".far,
    near_id integer REFERENCES near, later_id integer
);
ALTER TABLE kinds ADD FOREIGN KEY (later_id) REFERENCES near NOT VALID;
CREATE TABLE numbered (n double precision PRIMARY KEY);
CREATE TABLE doubtful (a integer UNIQUE);
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
CREATE MATERIALIZED VIEW seen AS SELECT 1 AS id;
CREATE TABLE parts (id integer, day date, near_id integer, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
ALTER TABLE parts_1 ADD FOREIGN KEY (near_id) REFERENCES near;
CREATE TABLE whole (id integer, near_id integer REFERENCES near, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE hidden (id integer PRIMARY KEY, name text); REVOKE ALL ON hidden FROM starlift_reader;
CREATE TABLE half (id integer PRIMARY KEY, name text, wage integer); REVOKE ALL ON half FROM starlift_reader;
GRANT SELECT (id, name) ON half TO starlift_reader;
INSERT INTO near VALUES (1, 'a', 'a');
INSERT INTO kinds VALUES
    ('00000000-0000-0000-0000-000000000001', now(), '1:00', 'x', 'it''s', '{"so: so"}', 'x', '[1,3)', 1.5, 2, 'a');
"""
Command = Callable[..., Answer]


@pytest.fixture
def starlift(postgres_cluster: TestCluster, source_database: str) -> Command:
    """Runs `starlift` beside a source to which the environment leads."""
    environment = {**os.environ, "STARLIFT_SOURCE_URL": postgres_cluster.url(source_database, READER)}
    return lambda *words: run_starlift(*map(str, words), environment=environment)


async def proposed(source: Pipeline, schema: str = "public", **options: Any) -> Pipeline:
    """The pipeline under the contract that is proposed."""
    text = propose(await read_schemas(source.source, [schema], **options), "proposed")
    return source.reading(read_contract(text, "proposed.yaml"))


async def test_a_film_rental_s_star_is_proposed_loaded_proved_and_follows_the_catalog(
    owner: asyncpg.Connection, empty: Pipeline, starlift: Command, tmp_path: Path
) -> None:
    await owner.execute(RENTAL_SHOP)
    path = tmp_path / "rental.yaml"
    written = await asyncio.to_thread(starlift, "init", "--output", path)
    assert (written.code, written.err) == (0, "")
    assert written.out == f"wrote {path}: 4 facts, 11 dimensions; the comments say what was left out\n"
    text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    assert (await asyncio.to_thread(starlift, "init", "--output", "-", "--name", "rental")).out == text.partition("\n")[2]
    assert "hunter2" not in text

    shop = empty.reading(read_contract(text, path.name))
    await shop.run()
    await require_equal(shop)
    await require_as_by_hand(owner, shop, by_hand.RENTAL)
    await owner.execute(by_hand.RENTAL_CHANGES)
    await shop.run(compare_keys=True)
    await require_equal(shop)
    await require_as_by_hand(owner, shop, by_hand.RENTAL)

    assert (await asyncio.to_thread(starlift, "pull", "--contract", path)).code == 0
    await owner.execute("""
        ALTER TABLE film ADD COLUMN budget numeric(12, 2);
        ALTER TABLE customer DROP COLUMN activebool;
        ALTER TABLE city ALTER COLUMN city DROP NOT NULL""")
    changes = "- customer.activebool\n~ city.city: text not null -> text\n+ film.budget: numeric(12,2)\n"
    checked = await asyncio.to_thread(starlift, "pull", "--contract", path, "--check")
    assert (checked.code, sorted(checked.out.splitlines())) == (3, sorted(changes.splitlines()))
    assert await asyncio.to_thread(path.read_text, encoding="utf-8") == text
    pulled = await asyncio.to_thread(starlift, "pull", "--contract", path)
    assert (pulled.code, pulled.out) == (3, checked.out)
    assert "dim_customer.activebool: table 'customer' has no column 'activebool'" in pulled.err
    now = await asyncio.to_thread(path.read_text, encoding="utf-8")
    assert now.partition("\nsource:")[0] == text.partition("\nsource:")[0]
    assert "        budget: numeric(12,2)\n" in now
    assert (await asyncio.to_thread(starlift, "pull", "--contract", path)).code == 0


async def test_a_schema_of_120_tables_is_proposed_in_seconds_loaded_and_proved(
    owner: asyncpg.Connection, empty: Pipeline
) -> None:
    """Layers of thirty tables; each refers to two of the layer below, the last layer is of events."""
    statements = []
    for number in range(120):
        below = [f"t{place}" for place in (number - 30, number - 37 + number % 7) if place >= 0]
        links = "".join(f", {name}_id integer REFERENCES {name}" for name in dict.fromkeys(below))
        own = (
            ", happened_at timestamptz NOT NULL, amount numeric(9, 2), updated_at timestamptz NOT NULL" if number >= 90 else ""
        )
        values = "".join(", 1 + n % 5" for _ in dict.fromkeys(below)) + (
            ", now() - n * interval '1 day', n, now()" if own else ""
        )
        statements += [
            f"CREATE TABLE t{number} (id serial PRIMARY KEY, name text, kind varchar(9), size integer{links}{own})",
            f"INSERT INTO t{number} SELECT n, 'name ' || n, 'k', n{values} FROM generate_series(1, 9) AS n",
        ]
    await owner.execute(";".join(statements))
    begun = time.monotonic()
    shop = await proposed(empty)
    assert time.monotonic() - begun < 30
    assert len(shop.contract.facts) == 30
    assert len(shop.contract.remodelled_tables) == 120
    await shop.run()
    await require_equal(shop)


async def test_names_that_mean_something_elsewhere_are_proposed_loaded_and_proved(
    owner: asyncpg.Connection, empty: Pipeline
) -> None:
    names = (
        "no",
        "on",
        "~",
        "a: b",
        "#x",
        " x ",
        "größe",
        "it's",
        'say "hi"',
        "a.b",
        "1st",
        "_id",
        "{x}",
        "a/b",
        "dim_date",
    )
    for name in names:
        table, column, link = quoted(name), quoted(f"{name}!"), quoted(f"{name} of")
        await owner.execute(
            f"CREATE TABLE {table} ({quoted(name)} integer PRIMARY KEY, {column} text NOT NULL, {link} integer)"
        )
        await owner.execute(f"ALTER TABLE {table} ADD FOREIGN KEY ({link}) REFERENCES {quoted(names[0])}")
        await owner.execute(f"INSERT INTO {table} VALUES (1, 'x', 1), (2, 'y', NULL)")
        await owner.execute(
            f"CREATE TABLE {quoted(f'{name} sold')} ({column} integer PRIMARY KEY REFERENCES {table}, {link} timestamptz)"
        )
        await owner.execute(f"INSERT INTO {quoted(f'{name} sold')} VALUES (1, now()), (2, NULL)")
    shop = await proposed(empty)
    # `foreign_keys` can't name a column that ends in blanks, and a key of S3 can't hold a '/'.
    facts = {f"{name} sold".replace("/", "_") for name in names if name == name.strip()}
    assert {one.source for one in shop.contract.facts} == facts
    await shop.run()
    await require_equal(shop)


async def test_kinds_of_tables_types_and_keys_are_read_as_they_are(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(KINDS)
    found = (await read_schemas(empty.source, ["public"])).tables
    assert {name: table.problem for name, table in found.items() if table.problem} == {
        "doubtful": "it has neither a primary key nor a unique index on NOT NULL columns",
        "hidden": "the role has no privilege to read it",
        "numbered": "its key holds 'n', which is double precision",
        "parent": "other tables inherit from it, which its key does not cover",
        "seen": "it is a materialized view: no transaction id of its rows shows what changed",
    }
    assert found["kinds"].remarks == (
        "foreign key (far_id): 'Other.far' is not among the tables that were read",
        "foreign key (near_code): it refers to (code) of 'near', whose key is (id)",
    )
    links = {name: [(link.columns, link.table) for link in table.foreign_keys] for name, table in found.items()}
    assert {name: one for name, one in links.items() if one} == {
        "kinds": [(("near_id",), "near")],
        "whole": [(("near_id",), "near")],
    }
    text = propose(await read_schemas(empty.source, ["public"]), "kinds")
    assert (
        """
        id: uuid not null
        at: timestamp
        t: time
        d: varchar(9)
        m: "enum('so: so', 'it''s')"
        ms: "\\"Other\\".\\"Mood\\"[]"
        c: text
        r: int4range
        n: numeric
        big: numeric(30,2)
"""
        in text
    )
    shop = empty.reading(read_contract(text, "kinds.yaml"))
    await shop.run()
    await require_equal(shop)
    assert [one.name for one in shop.contract.warehouse_table("dim_half").columns] == ["id", "name"]


async def test_globs_choose_among_the_tables_of_any_schema(
    owner: asyncpg.Connection, empty: Pipeline, starlift: Command
) -> None:
    await owner.execute('CREATE SCHEMA "The Shop"; GRANT USAGE ON SCHEMA "The Shop" TO starlift_reader')
    for name in ("a1", "a2", "ab", "b.1", "b_1"):
        await owner.execute(f'CREATE TABLE "The Shop"."{name}" (id integer PRIMARY KEY, name text)')
    await owner.execute(
        'GRANT SELECT ON ALL TABLES IN SCHEMA "The Shop" TO starlift_reader; INSERT INTO "The Shop".a1 VALUES (1)'
    )
    chosen = {
        (): ["a1", "a2", "ab", "b.1", "b_1"],
        ("a?",): ["a1", "a2", "ab"],
        ("*1", "ab"): ["a1", "ab", "b.1", "b_1"],
        ("b.*",): ["b.1"],
    }
    for globs, names in chosen.items():
        assert list((await read_schemas(empty.source, ["The Shop"], include=globs)).tables) == names
    assert list((await read_schemas(empty.source, ["The Shop"], exclude=["a?", "x"])).tables) == ["b.1", "b_1"]
    shop = await proposed(empty, "The Shop", include=["a*"], exclude=["a2"])
    await shop.run()
    await require_equal(shop)
    assert await shop.select("SELECT id FROM dim_a1") == [(1,)]

    refused = await asyncio.to_thread(starlift, "init", "--output", "-", "--schema", "shop")
    assert refused.complains(2) == "the source has no schema 'shop', only The Shop, public; pass one of them as --schema"
    nothing = await asyncio.to_thread(starlift, "init", "--output", "-", "--include", "x*")
    assert nothing.complains(4).startswith("schema 'public' has no table of which a star can be made")
    await owner.execute('REVOKE USAGE ON SCHEMA "The Shop" FROM starlift_reader')
    refused = await asyncio.to_thread(starlift, "init", "--output", "-", "--schema", "The Shop")
    assert refused.complains(2) == "the role may not use schema 'The Shop'; GRANT USAGE ON SCHEMA \"The Shop\" to it"


@begins_with(filled_totesys(orders=40))
async def test_totesys_has_its_three_facts_although_transactions_stand_between_orders_and_payments(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await filled.execute("ANALYZE")
    proposed = read_contract(propose(await read_schemas(pipeline.source, ["public"]), "totesys"), "proposal")
    assert {fact.source for fact in proposed.facts} == {"sales_order", "purchase_order", "payment"}
    star = pipeline.reading(proposed)
    await star.run()
    await require_equal(star)
