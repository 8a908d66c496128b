"""Which rows both sides hash where a run reads a table in full, and where a fact has no versions."""

from __future__ import annotations

import asyncpg
import pytest

from contracts.column_types import INTEGER
from contracts.messages import LookUpKeys, LookUpKeysData, RowsOf
from contracts.origins import FromSource
from contracts.tables import Column, Fact
from infra.local.databases import READER
from shared.envelope import opening
from tests.fixtures.pipeline import SOURCE, Pipeline, tables_read
from tests.integration.plain_star import DIM_DATE, of, require_equal, source_table

SALE = source_table("sale", "id", id=INTEGER, v=INTEGER)
VISIT = source_table("visit", "id", id=INTEGER, v=INTEGER)


def fact(name: str) -> Fact:
    columns = (Column("id", INTEGER, FromSource("id")), Column("v", INTEGER, FromSource("v"), nullable=True))
    return Fact(f"fact_{name}", ("id",), columns, name)


CONTRACT = of(SALE, VISIT, star=(DIM_DATE, fact("sale"), fact("visit")))
SWAP = """
CREATE TABLE new (id int PRIMARY KEY, v int);
INSERT INTO new SELECT * FROM sale WHERE id <> 3;
DROP TABLE sale;
ALTER TABLE new RENAME TO sale;
"""


@pytest.fixture
async def loaded(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    """Two facts without versions, whose rows have the key alone."""
    for table in ("sale", "visit"):
        await owner.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int)")
        await owner.execute(f"INSERT INTO {table} SELECT n, 0 FROM generate_series(1, 9) AS n")
    pipeline = empty.reading(CONTRACT)
    await pipeline.run()
    return pipeline


async def asked(pipeline: Pipeline, *, compare_keys: bool = False) -> dict[str, tuple[tuple[int | str, ...], ...]]:
    """By source table, the keys that loading asks about after a run; the questions are answered."""
    questions = await pipeline.load(*await pipeline.read(compare_keys=compare_keys))
    await pipeline.settle(questions)
    return {rows.table: rows.keys for question in questions for rows in question.data.rows}


async def marked(pipeline: Pipeline, table: str) -> list[int]:
    return [key for (key,) in await pipeline.select(f"SELECT id FROM fact_{table} WHERE _deleted_at IS NOT NULL ORDER BY 1")]


async def test_the_keys_of_a_fact_without_versions_are_compared_even_if_its_rows_changed(
    owner: asyncpg.Connection, loaded: Pipeline
) -> None:
    for change in range(1, 3):
        await owner.execute("UPDATE sale SET v = $1 WHERE id <= 4", change)
        assert await asked(loaded, compare_keys=True) == {}
    await owner.execute("DELETE FROM sale WHERE id IN (4, 7); UPDATE sale SET v = 3 WHERE id < 4")
    assert await asked(loaded, compare_keys=True) == {"sale": tuple((key,) for key in (4, 5, 6, 7, 8, 9))}
    assert await marked(loaded, "sale") == [4, 7]
    assert await asked(loaded, compare_keys=True) == {}
    await owner.execute("INSERT INTO sale VALUES (4, 9)")
    await loaded.run()
    assert await marked(loaded, "sale") == [7]
    await require_equal(loaded)


async def test_every_run_compares_a_table_without_transaction_ids_and_asks_only_about_deleted_rows(
    owner: asyncpg.Connection, loaded: Pipeline
) -> None:
    """Every run reads all of it, so that its hashes are those of no row, and the star's rows have the run's number."""
    await owner.execute(f"REVOKE ALL ON sale FROM {READER}; GRANT SELECT (id, v) ON sale TO {READER}")
    await loaded.run()
    await owner.execute("UPDATE sale SET v = 1 WHERE id < 4; DELETE FROM visit WHERE id = 5")
    assert await asked(loaded) == {}
    await owner.execute("DELETE FROM sale WHERE id = 3")
    assert await asked(loaded) == {"sale": ((3,),)}
    assert (await marked(loaded, "sale"), await marked(loaded, "visit")) == ([3], [])
    assert await asked(loaded, compare_keys=True) == {"visit": ((5,),)}
    await require_equal(loaded)


async def test_a_row_lost_in_a_redefinition_is_found_by_the_run_that_reads_the_table(
    owner: asyncpg.Connection, loaded: Pipeline
) -> None:
    await owner.execute(SWAP)
    assert await asked(loaded) == {"sale": ((3,),)}
    assert await marked(loaded, "sale") == [3]
    await require_equal(loaded)


async def test_an_answer_that_first_sees_a_redefined_table_compares_its_keys(
    owner: asyncpg.Connection, loaded: Pipeline
) -> None:
    await owner.execute(f"{SWAP}; DELETE FROM visit WHERE id = 5")
    rows = (RowsOf(table="visit", keys=((5,), (6,))),)
    answer = await loaded.obey(LookUpKeys(**opening("tests"), data=LookUpKeysData(source_name=SOURCE, rows=rows)))
    assert tables_read(answer) == {"sale": 8}
    questions = await loaded.load(*[await loaded.remodel(batch) for batch in answer])
    assert [rows for question in questions for rows in question.data.rows] == [RowsOf(table="sale", keys=((3,),))]
    await loaded.settle(questions)
    assert (await marked(loaded, "sale"), await marked(loaded, "visit")) == ([3], [5])
    await require_equal(loaded)
