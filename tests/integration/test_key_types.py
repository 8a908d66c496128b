"""Keys of every type and in every kind of encoding: both sides hash them alike, and a deleted one is named alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import asyncpg
import pytest

from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    DATE,
    INTEGER,
    TEXT,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    ColumnType,
    enum,
    numeric,
    verbatim,
)
from contracts.messages import LookUpKeys, LookUpKeysData, RowsOf
from infra.local.databases import LOADER, SOURCE_OWNER, execute
from services.loading.deletes import in_question
from shared.envelope import opening
from tests.fixtures.pipeline import SOURCE, Pipeline, open_pipeline, tables_read
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.plain_star import dimension_of, of, require_equal, source_table

TEXTS = {"UTF8": "ü€日本😀", "LATIN1": "üé", "WIN1252": "ü€", "EUC_JP": "日本、ｱ"}  # in characters of the encoding
ROWS, DOOMED = 20, 7


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of a key: its type in the contract and at the source, and its value in row `n`, where {0} is a text."""

    type: ColumnType
    source_type: str
    value: str


SMALLINT = KeyColumn(INTEGER, "smallint", "n - 10")
WHOLE = KeyColumn(INTEGER, "integer", "-2147483648 + n")
BIG = KeyColumn(BIGINT, "bigint", "9223372036854775807 - n")
SMALL_AS_BIG = KeyColumn(BIGINT, "integer", "n")
SCALED = KeyColumn(numeric(12, 2), "numeric(12,2)", "n * 1.25 - 10")
WITHOUT_SCALE = KeyColumn(numeric(18, 0), "numeric(18,0)", "999999999999999999 - n")
UNBOUNDED = KeyColumn(verbatim("numeric"), "numeric", "((n * 10) || left('.500', n % 5))::numeric")
LONG = KeyColumn(verbatim("numeric(38,2)"), "numeric(38,2)", "10::numeric ^ 30 + n / 4.0")
AS_SCALED = KeyColumn(numeric(12, 3), "numeric", "(-n || '.5' || left('00', n % 3))::numeric")
YES = KeyColumn(BOOLEAN, "boolean", "n % 2 = 0")
PLAIN = KeyColumn(TEXT, "text", "repeat('{0}', n) || n")
BOUNDED = KeyColumn(TEXT, "varchar(30)", "n || ' {0} '")
PADDED = KeyColumn(TEXT, "character(30)", "n || '{0}'")
LABEL = KeyColumn(TEXT, "label", "(enum_range(NULL::label))[n]")
LABEL_AS_ENUM = KeyColumn(enum("known"), "label", "(enum_range(NULL::label))[n]")
DOMAIN = KeyColumn(TEXT, "code", "'{0}' || n")
UUID_OF_N = KeyColumn(UUID, "uuid", "md5(n::text)::uuid")
DAY = KeyColumn(DATE, "date", "date '0001-01-01' + n * 180000")
MOMENT = KeyColumn(TIMESTAMP, "timestamp", "timestamp '0044-03-15' + n * interval '99 years 1.00001 s'")
MILLISECOND = KeyColumn(TIMESTAMP, "timestamp(3)", "timestamp '2026-01-01' + n * interval '10 ms'")
ZONED = KeyColumn(TIMESTAMPTZ, "timestamptz", "timestamptz '2026-03-29 00:59:59.5+00' + n * interval '1 s'")
# The border between two columns moves with n, and a text may look as if it marked one.
HEAD, TAIL = (
    KeyColumn(TEXT, "text", "left('1:{0}1:{0}2:{0}{0}1:1:1:', n % 7 + 1)"),
    KeyColumn(TEXT, "text", "substr('1:{0}1:{0}2:{0}{0}1:1:1:', n % 7 + 2) || n / 7"),
)
KEYS = {
    "by_smallint": (SMALLINT,),
    "by_integer": (WHOLE,),
    "by_bigint": (BIG,),
    "by_integer_as_bigint": (SMALL_AS_BIG,),
    "by_numeric": (SCALED,),
    "by_numeric_0": (WITHOUT_SCALE,),
    "by_unbounded": (UNBOUNDED,),
    "by_long_numeric": (LONG,),
    "by_unbounded_as_numeric": (AS_SCALED,),
    "by_text": (PLAIN,),
    "by_varchar": (BOUNDED,),
    "by_bpchar": (PADDED,),
    "by_enum": (LABEL,),
    "by_declared_enum": (LABEL_AS_ENUM,),
    "by_boolean": (YES, SMALLINT),
    "by_domain": (DOMAIN,),
    "by_uuid": (UUID_OF_N,),
    "by_date": (DAY,),
    "by_timestamp": (MOMENT,),
    "by_timestamp_3": (MILLISECOND,),
    "by_timestamptz": (ZONED,),
    "by_many": (SMALLINT, PADDED, UUID_OF_N, ZONED, DAY),
    "by_many_numbers": (YES, SCALED, UNBOUNDED, LABEL_AS_ENUM),
    "by_two_texts": (HEAD, TAIL),
}


def key_of(columns: tuple[KeyColumn, ...]) -> dict[str, ColumnType]:
    return {f"k{place}": one.type for place, one in enumerate(columns)}


TABLES = [source_table(name, tuple(key_of(key)), **key_of(key), n=INTEGER) for name, key in KEYS.items()]
CONTRACT = of(*TABLES, star=tuple(dimension_of(table, history=True) for table in TABLES))


def ddl(text: str) -> Iterator[str]:
    labels = ", ".join(f"'{text} {number}'" for number in range(1, ROWS + 1))
    yield f"CREATE TYPE label AS ENUM ({labels})"
    yield "CREATE DOMAIN code AS varchar(40) CHECK (VALUE <> '')"
    for name, columns in KEYS.items():
        names = ", ".join(key_of(columns))
        typed = ", ".join(f"{key} {one.source_type}" for key, one in zip(key_of(columns), columns, strict=True))
        values = ", ".join(one.value.format(text) for one in columns)
        yield f"CREATE TABLE {name} ({typed}, n int NOT NULL, PRIMARY KEY ({names}))"
        yield f"INSERT INTO {name} SELECT {values}, n FROM generate_series(1, {ROWS}) AS n"


@pytest.fixture(params=TEXTS)
def encoded_database(
    postgres_cluster: TestCluster,
    source_database: str,  # which has the same owner
    request: pytest.FixtureRequest,
) -> Iterator[str]:
    """The name of a source of an encoding, with ROWS rows in each table."""
    name = f"test_keys_{request.param.lower()}"
    encoded = f"ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    execute(postgres_cluster.url(), f"CREATE DATABASE {name} OWNER {SOURCE_OWNER} {encoded} STRATEGY file_copy")
    execute(postgres_cluster.url(name, SOURCE_OWNER), *ddl(TEXTS[request.param]))
    yield name
    postgres_cluster.drop_database(name)


@pytest.fixture
async def pipeline(postgres_cluster: TestCluster, encoded_database: str, warehouse_database: str) -> AsyncIterator[Pipeline]:
    urls = postgres_cluster.url(encoded_database, SOURCE_OWNER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(*urls, contract=CONTRACT) as opened:
        yield opened


async def test_a_deleted_row_with_any_type_of_key_is_asked_about_and_marked(
    postgres_cluster: TestCluster, encoded_database: str, pipeline: Pipeline
) -> None:
    await pipeline.run()
    assert await pipeline.load(*await pipeline.read(compare_keys=True)) == []  # the hashes of both sides are equal
    owner = await asyncpg.connect(postgres_cluster.url(encoded_database, SOURCE_OWNER))
    await owner.execute("; ".join(f"DELETE FROM {name} WHERE n = {DOOMED}" for name in KEYS))
    await owner.close()
    questions = await pipeline.load(*await pipeline.read(compare_keys=True))
    asked = [rows for question in questions for rows in question.data.rows]
    assert {rows.table: len(rows.keys) for rows in asked} == dict.fromkeys(KEYS, 1)
    assert len(questions) == len(KEYS)
    await pipeline.settle(questions)
    for name in KEYS:
        marked = await pipeline.select(f"SELECT n FROM dim_{name} WHERE _deleted_at IS NOT NULL")
        assert marked == [(DOOMED,)], name
        ended = await pipeline.select(f"SELECT n FROM dim_{name}_history WHERE NOT is_current")
        assert ended == marked, name
    await require_equal(pipeline)


async def test_every_type_of_key_is_found_at_the_source_as_the_star_writes_it(pipeline: Pipeline) -> None:
    """Nothing is gone, and every row is read again that did not change."""
    await pipeline.run()
    rows = tuple([await keys_of_the_star(pipeline, name) for name in KEYS])
    question = LookUpKeys(**opening("tests"), data=LookUpKeysData(source_name=SOURCE, rows=rows))
    assert [batch.data.gone for batch in await pipeline.obey(question)] == [()]
    assert tables_read(await pipeline.ingest(reread=rows)) == dict.fromkeys(KEYS, ROWS)


async def keys_of_the_star(pipeline: Pipeline, name: str) -> RowsOf:
    columns = ", ".join(in_question(CONTRACT.warehouse_table(f"dim_{name}"), "t"))
    return RowsOf(table=name, keys=tuple(await pipeline.select(f"SELECT {columns} FROM dim_{name} AS t")))
