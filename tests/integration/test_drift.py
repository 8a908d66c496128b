"""A source that gains columns unknown to the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import asyncpg
import duckdb
import pytest
from structlog.testing import capture_logs

from contracts.column_types import INTEGER
from contracts.contract import Contract
from contracts.messages import BatchIngested, Mode, Role
from contracts.origins import FromSource
from contracts.tables import Column, Drift, SourceColumn
from services.ingestion.source import BatchLimits
from services.operator.local.totesys.fill import fill
from shared.errors import PermanentError
from tests.fixtures.beginnings import begins_with, loaded_totesys
from tests.fixtures.pipeline import LANDING, Pipeline, landed_bodies
from tests.fixtures.totesys import CONTRACT

HOSTILE = 'so "new"; --'
VALUES = ("", None, r"\N", "{1,2}", "12000-01-01 BC", "🚚")


CARRYING = replace(CONTRACT, source_tables=tuple(replace(table, drift=Drift.CARRY) for table in CONTRACT.source_tables))


def with_design(*columns: SourceColumn) -> Contract:
    """The carrying contract with these columns of designs in both databases."""
    design, star = CARRYING.source_table("design"), CARRYING.warehouse_table("dim_design")
    read = replace(design, columns=(*design.columns, *columns))
    held = [Column(column.name, column.type, FromSource(column.name), nullable=True) for column in columns]
    loaded = replace(star, columns=(*star.columns, *held))
    return replace(
        CARRYING,
        source_tables=tuple(read if table is design else table for table in CARRYING.source_tables),
        warehouse_tables=tuple(loaded if table is star else table for table in CARRYING.warehouse_tables),
    )


async def carried(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    """A pipeline loaded under a contract that carries unknown columns."""
    await fill(source, orders=20, seed=1)
    await pipeline.reading(CARRYING).run()


pytestmark = begins_with(carried)


@pytest.fixture
def loaded(pipeline: Pipeline) -> Pipeline:
    """A pipeline that writes Parquet, whatever the size of a batch: another reader of it sees the columns."""
    return replace(pipeline.reading(CARRYING), limits=BatchLimits(bundle_rows=0))


def landed(pipeline: Pipeline, messages: Sequence[BatchIngested], table: str, role: Role = Role.BASE) -> bytes:
    """The file of one extract."""
    (extract,) = [one for message in messages for one in message.data.extracts if (one.table, one.role) == (table, role)]
    return pipeline.objects.buckets[LANDING][extract.object.key]


def column(body: bytes, place: Path, name: str, key: str) -> list[object]:
    """A column of a file, in the order of the key, as another reader of Parquet sees it."""
    place.write_bytes(body)
    quoted_name = name.replace('"', '""')
    return [value for (value,) in duckdb.read_parquet(str(place)).order(key).project(f'"{quoted_name}"').fetchall()]


async def test_a_new_column_of_a_carrying_table_is_landed_as_text_and_reported_once(
    source: asyncpg.Connection, loaded: Pipeline, tmp_path: Path
) -> None:
    await source.execute(f"""ALTER TABLE design ADD COLUMN colour text, ADD COLUMN "{HOSTILE.replace('"', '""')}" int[]""")
    for number, value in enumerate(VALUES, start=1):
        await source.execute("UPDATE design SET colour = $2 WHERE design_id = $1", number, value)
    await source.execute(f"""UPDATE design SET "{HOSTILE.replace('"', '""')}" = '{{1,NULL}}' WHERE design_id = 2""")
    with capture_logs() as logs:
        messages = await loaded.ingest()
    (told,) = [entry for entry in logs if entry["event"] == "new_columns"]
    assert (told["table"], told["columns"], told["carried"]) == (
        "design",
        ("colour text", f"{HOSTILE} integer[]"),
        ("colour", HOSTILE),
    )
    file = landed(loaded, messages, "design")
    assert tuple(column(file, tmp_path / "a.parquet", "colour", "design_id")[: len(VALUES)]) == VALUES
    assert column(file, tmp_path / "b.parquet", HOSTILE, "design_id")[:3] == [None, "{1,NULL}", None]
    await loaded.load(*[await loaded.remodel(message) for message in messages])
    assert (await loaded.verify()).is_equal
    assert loaded.checkpoint().new_columns == {"design": ("colour text", f"{HOSTILE} integer[]")}
    await source.execute("UPDATE design SET colour = 'red' WHERE design_id = 7")
    with capture_logs() as logs:
        messages = await loaded.ingest()
    assert column(landed(loaded, messages, "design"), tmp_path / "c.parquet", "colour", "design_id") == ["red"]
    assert [entry for entry in logs if entry["event"] == "new_columns"] == []


@begins_with(loaded_totesys(orders=20))  # the shipped contract says nothing of unknown columns
async def test_a_column_outside_the_contract_stays_at_the_source_and_is_reported_once(
    source: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await source.execute("ALTER TABLE staff ADD COLUMN password_hash text DEFAULT 'between us'")
    await source.execute("ALTER TABLE department ADD COLUMN password_hash text DEFAULT 'between us'")  # a partner of staff
    with capture_logs() as logs:
        messages = await pipeline.ingest()
    told = {entry["table"]: (entry["columns"], entry["carried"]) for entry in logs if entry["event"] == "new_columns"}
    assert told == dict.fromkeys(("department", "staff"), (("password_hash text",), ()))
    assert {extract.table for message in messages for extract in message.data.extracts} >= {"staff", "department"}
    assert not any(b"password_hash" in body for body in landed_bodies(pipeline, messages))
    await pipeline.load(*[await pipeline.remodel(message) for message in messages])
    assert (await pipeline.verify()).is_equal
    assert pipeline.checkpoint().new_columns == dict.fromkeys(("department", "staff"), ("password_hash text",))
    with capture_logs() as logs:
        await pipeline.ingest(Mode.FULL)
    assert [entry for entry in logs if entry["event"] == "new_columns"] == []


async def test_a_partner_also_carries_its_new_columns(source: asyncpg.Connection, loaded: Pipeline, tmp_path: Path) -> None:
    await source.execute("ALTER TABLE department ADD COLUMN budget numeric DEFAULT 1e30")
    await loaded.run()
    await source.execute("UPDATE staff SET first_name = 'Ada' WHERE staff_id = 1")
    messages = await loaded.ingest()
    budget = column(landed(loaded, messages, "department", Role.PARTNER), tmp_path / "a.parquet", "budget", "department_id")
    assert budget == [str(10**30)]
    await loaded.load(*[await loaded.remodel(message) for message in messages])
    assert (await loaded.verify()).is_equal


async def test_a_carried_column_may_be_dropped_again(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute("ALTER TABLE design ADD COLUMN colour text")
    await loaded.run()
    await source.execute("ALTER TABLE design DROP COLUMN colour")
    await loaded.run()
    assert loaded.checkpoint().new_columns == {}
    assert (await loaded.verify()).is_equal


async def test_a_contract_that_adopts_the_column_reads_it_from_the_source(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """A carried column is text: an older extract can't be remodelled under the new contract, and the error names the reason."""
    await source.execute("ALTER TABLE design ADD COLUMN weight int")
    await source.execute("UPDATE design SET weight = design_id")
    (before,) = await loaded.ingest()
    adopted = loaded.reading(with_design(SourceColumn("weight", INTEGER, nullable=True)))
    with pytest.raises(PermanentError, match=r"does not fit contract 'totesys': .*the file has no column \['weight'\]"):
        await adopted.remodel(before)
    await adopted.run()
    assert await adopted.select("SELECT DISTINCT design_id - weight FROM dim_design WHERE weight IS NOT NULL") == [(0,)]
    assert adopted.checkpoint().new_columns == {}
    assert (await adopted.verify()).is_equal
