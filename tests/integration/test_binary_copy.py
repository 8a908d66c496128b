"""What a binary COPY makes of a data frame equals what the server makes of its staged form, for every kind of type."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import asyncpg
import pandas as pd
import pytest

from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    DATE,
    INTEGER,
    TEXT,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    ColumnType,
    enum,
    numeric,
    varchar,
)
from infra.local.databases import LOADER
from shared import binary_copy as binary
from shared.codecs import codec_of
from tests.fixtures.postgres_cluster import TestCluster

KINDS = [BIGINT, INTEGER, BOOLEAN, DATE, TIME, TIMESTAMP, TIMESTAMPTZ, TEXT, varchar(3), enum("a")]
DECIMALS = [numeric(p, s) for p in range(1, 19) for s in range(p + 1)]
DAY_US = 86_400_000_000
TEXTS = ["", "a", "é", "\U0001f600\n", "abc", "\\N", None]


def numbers(kind: ColumnType, random: Random) -> list[int | None]:
    """The ends of what the type holds, what surrounds zero, and any others."""
    if kind.unscaled is not None:
        ends = kind.unscaled[0], kind.unscaled[-1]
    elif kind is TIME:
        ends = 0, DAY_US - 1
    else:
        ends = codec_of(kind).limits or (0, 1)
    some = [random.randint(*ends) for _ in range(20)]
    powers = [sign * (10**power + more) for power in range(19) for more in (-1, 0, 1) for sign in (-1, 1)]
    return [*ends, *some, *(power for power in powers if ends[0] <= power <= ends[1]), None]


@pytest.fixture
async def connection(postgres_cluster: TestCluster, warehouse_database: str) -> asyncpg.Connection:
    return await asyncpg.connect(postgres_cluster.url(warehouse_database, LOADER))


@pytest.mark.parametrize(("rows", "byte_count"), [(0, 1), (1, 1), (7, 1), (250, 200), (250, 10**6)])
async def test_every_value_of_every_type_arrives_exactly(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, rows: int, byte_count: int
) -> None:
    """Also where texts are too long for all rows to be encoded side by side."""
    monkeypatch.setattr(binary, "ROWS_AT_ONCE", 100)
    monkeypatch.setattr(binary, "BYTES_AT_ONCE", byte_count)
    random = Random(rows)  # noqa: S311 (repeatable on purpose)
    types = {f"c{number}": kind for number, kind in enumerate([*KINDS, *DECIMALS])}
    columns = {}
    for name, kind in types.items():
        values = TEXTS if kind.travels_as_text else numbers(kind, random)
        column = random.sample(values, k=min(rows, len(values))) if rows <= len(values) else (values * rows)[:rows]
        columns[name] = pd.Series(column, dtype=codec_of(kind).frame)
    frame = pd.DataFrame(columns)
    wanted = "CREATE TEMPORARY TABLE {} ({})".format
    names = ", ".join(types)
    await connection.execute(wanted("direct", ", ".join(f"{name} {kind.sql}" for name, kind in types.items())))
    await connection.execute(wanted("staged", ", ".join(f"{name} {codec_of(kind).staged}" for name, kind in types.items())))
    await connection.copy_to_table("direct", source=arriving(frame, types), columns=list(types), format="binary")
    objects = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in types]
    await connection.copy_records_to_table("staged", records=zip(*objects, strict=True), columns=list(types))
    read = ", ".join(f"{codec_of(kind).loaded(name)} AS {name}" for name, kind in types.items())
    for one, other in (("direct", f"(SELECT {read} FROM staged)"), (f"(SELECT {read} FROM staged)", "direct")):
        different = f"SELECT {names} FROM {one} AS a EXCEPT ALL SELECT {names} FROM {other} AS b"
        assert await connection.fetch(different) == []
    assert await connection.fetchval("SELECT count(*) FROM direct") == rows
    await connection.close()


async def arriving(frame: pd.DataFrame, types: dict[str, ColumnType]) -> AsyncIterator[bytes]:
    for piece in binary.binary_copy(frame, types):
        yield piece
