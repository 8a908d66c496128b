from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from contracts.column_types import BIGINT, BOOLEAN, DATE, INTEGER, TEXT, TIME, TIMESTAMP, TIMESTAMPTZ, ColumnType, numeric
from contracts.objects import SourceKeys
from contracts.origins import FromSource
from contracts.tables import Column, Dimension, Fact
from services.operator.proof.loaded import LoadedBatch, read_versions, spelled
from shared.bundles import encode_bundle
from shared.parquet import NewerColumnsError, encode_parquet
from shared.source_store import SourceStore
from shared.testing import FakeObjectStore
from tests.fixtures.small_contract import FACT_SALE
from tests.fixtures.source_rows import items, remodelled
from tests.unit.services.operator.scene import BEGAN, PROCESSED, SOURCE, ingested

BATCH = LoadedBatch(ingested(7).data.batch_id, 7, 0, BEGAN, 2)
DAY_US = 86_400_000_000


async def versions(fact: Dimension | Fact, *, name: str = "fact_sale") -> list[tuple[str, ...]] | None:
    """The versions of the two sales that a batch has written as rows of `name`."""
    rows = remodelled(items({}, {"sold_at": -1}), "fact_sale").rows
    body = encode_parquet(rows, FACT_SALE.star_types)
    objects = FakeObjectStore(PROCESSED)
    await objects.put(PROCESSED, SourceKeys(SOURCE).batch(7, 0).star_rows(name, sha256(body).hexdigest()), body)
    return await read_versions(SourceStore(objects, SOURCE, "landing", PROCESSED), fact, BATCH)


async def test_a_version_is_identified_by_its_key_and_version_columns() -> None:
    assert await versions(FACT_SALE) == [("1", "2026-11-01", "09:30:00.000001"), ("2", "1969-12-31", "23:59:59.999999")]


async def test_the_versions_of_a_small_batch_are_read_from_its_bundle() -> None:
    rows = remodelled(items({}, {"sold_at": -1}), "fact_sale").rows
    keys, objects = SourceKeys(SOURCE).batch(7, 0), FakeObjectStore(PROCESSED)
    store = SourceStore(objects, SOURCE, "landing", PROCESSED)
    for name in ("dim_other", "fact_sale"):  # that of another remodelling of the batch comes first, or last
        body = encode_bundle([(name, rows, FACT_SALE.star_types, ())])
        await objects.put(PROCESSED, keys.bundle(sha256(body).hexdigest()), body)
    assert await read_versions(store, FACT_SALE, BATCH) == await versions(FACT_SALE)


async def test_an_object_made_under_another_key_is_not_readable() -> None:
    later = Column("branch", INTEGER, FromSource("branch"))
    fact = replace(FACT_SALE, key=("item_id", "branch"), columns=(*FACT_SALE.columns, later))
    assert await versions(fact) is None


async def test_a_table_name_that_continues_with_a_hyphen_is_another_table() -> None:
    assert await versions(FACT_SALE, name="fact_sale-of-others") is None


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (7, INTEGER, "7"),
        (-(2**63), BIGINT, "-9223372036854775808"),
        (-5, numeric(18, 4), "-0.0005"),
        (10**17, numeric(18, 0), "100000000000000000"),
        ("0.10", TEXT, "0.10"),
        (True, BOOLEAN, "true"),
        (-719162, DATE, "0001-01-01"),
        (0, TIME, "00:00:00"),
        (DAY_US - 1000, TIME, "23:59:59.999"),
        (-1, TIMESTAMP, "1969-12-31 23:59:59.999999"),
        (10 * DAY_US, TIMESTAMP, "1970-01-11 00:00:00"),
    ],
    ids=str,
)
def test_a_value_is_written_as_postgresql_writes_it(value: Any, kind: ColumnType, text: str) -> None:
    assert spelled(value, kind) == text


@pytest.mark.parametrize(("extra", "rows"), [(b"x", 2), (b"", 1)], ids=["other bytes", "more rows than were loaded"])
async def test_an_object_that_differs_from_the_loaded_one_is_not_trusted(extra: bytes, rows: int) -> None:
    body = encode_parquet(remodelled(items({}, {"sold_at": -1}), "fact_sale").rows, FACT_SALE.star_types)
    objects = FakeObjectStore(PROCESSED)
    await objects.put(PROCESSED, SourceKeys(SOURCE).batch(7, 0).star_rows("fact_sale", sha256(body).hexdigest()), body + extra)
    assert (
        await read_versions(SourceStore(objects, SOURCE, "landing", PROCESSED), FACT_SALE, replace(BATCH, row_count=rows))
        is None
    )


def test_a_timestamp_with_time_zone_is_written_in_utc() -> None:
    assert spelled(-1, TIMESTAMPTZ) == "1969-12-31 23:59:59.999999+00"


async def test_an_object_written_by_a_later_build_is_not_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise NewerColumnsError

    monkeypatch.setattr("shared.parquet.decode_columns", refuse)
    assert await versions(FACT_SALE) is None
