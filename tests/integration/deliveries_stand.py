"""Three data sets, a star of them, and their deliveries as runs would take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from contracts.column_types import BIGINT, BOOLEAN, DATE, INTEGER, JSONB, TEXT, TIMESTAMPTZ, numeric
from contracts.contract import Contract
from contracts.datasets import Contents, Dataset, Format, RecordForm
from contracts.messages import BatchIngested
from contracts.origins import CalendarPart, FromSource
from contracts.proofs import Outcome
from contracts.state import Checkpoint, DatasetState, SourceIdentity, SourceState
from contracts.tables import Calendar, Column, Dimension, Fact, SourceColumn, SourceTable
from services.operator.proof.row_comparison import Difference
from shared.landed import read_as
from tests.fixtures.delivered import AT, deliver, frame_of_rows
from tests.fixtures.pipeline import LANDING, Pipeline
from tests.integration.plain_star import differences

FORM = RecordForm(Format.CSV)
BUDGET = SourceTable(
    "budget",
    ("budget_id",),
    (
        SourceColumn("budget_id", INTEGER),
        SourceColumn("day", DATE),
        SourceColumn("amount", numeric(12, 2), nullable=True),
        SourceColumn("good", BOOLEAN, nullable=True),
        SourceColumn("at", TIMESTAMPTZ, nullable=True),
        SourceColumn("notes", JSONB, nullable=True),
    ),
    dataset=Dataset(FORM, Contents.SNAPSHOT),
)
RATE = SourceTable(
    "Rate",
    ("currency", "day"),
    (SourceColumn("currency", TEXT), SourceColumn("day", DATE), SourceColumn("rate", numeric(12, 4))),
    dataset=Dataset(FORM, Contents.INCREMENT),
)
TARGET = SourceTable(
    "target",
    ("staff",),
    (SourceColumn("staff", TEXT), SourceColumn("seq", BIGINT), SourceColumn("sum", INTEGER)),
    dataset=Dataset(FORM, Contents.INCREMENT, version="seq"),
)


def columns_of(table: SourceTable, **options: str) -> tuple[Column, ...]:
    return tuple(
        Column(one.name, one.type, FromSource(one.name), nullable=one.nullable, references=options.get(one.name))
        for one in table.columns
    )


PLANS = Contract(
    "plans",
    "public",
    "public",
    (BUDGET, RATE, TARGET),
    (
        Calendar("dim_day", ("day",), (Column("day", DATE, CalendarPart("date")),)),
        Dimension("dim_rate", RATE.key, columns_of(RATE), "Rate"),
        Dimension("dim_target", TARGET.key, columns_of(TARGET), "target"),
        Fact("fact_budget", BUDGET.key, columns_of(BUDGET, day="dim_day"), "budget"),
    ),
)
IDENTITY = SourceIdentity(system_identifier=1, timeline=1, database_oid=1, statistics_reset="")
FIRST_BUDGET = ((1, 19782, 10050, True, 1_700_000_000_000_000, '{"a": 1}'), (2, 19783, None, None, None, None))
FIRST_RATES = (("EUR", 19782, 11700), ("USD", 19782, 10000))
FIRST_TARGETS = (("Ada", 5, 100), ("Bob", 5, 200))


@dataclass
class Stand:
    """Deliveries of three data sets, as runs would take them, and the pipeline behind ingestion."""

    pipeline: Pipeline
    states: dict[str, DatasetState] = field(default_factory=dict)
    runs: int = 0

    async def deliver(self, table: SourceTable, *rows: Sequence[Any], whole: bool = False) -> list[BatchIngested]:
        """Take a delivery in a run of its own."""
        return await self.take(table, frame_of_rows(table, *rows), whole=whole)

    async def take(
        self, table: SourceTable, frame: pd.DataFrame, *, whole: bool = False, is_killed: bool = False
    ) -> list[BatchIngested]:
        """As `deliver`; a run that is killed has left its manifest, and not its state."""
        self.runs += 1
        before = self.states.get(table.name, DatasetState())
        whole_run = self.runs if whole else before.whole_run
        found = await deliver(self.pipeline.store, table, self.runs, frame, whole_run=whole_run)
        if is_killed:
            return found
        self.states[table.name] = read_as(table, before.model_copy(update={"whole_run": whole_run}))
        checkpoint = Checkpoint(
            run=self.runs,
            started_at=AT,
            snapshot=found[0].data.snapshot,
            identity=IDENTITY,
            contract=PLANS.fingerprint,
            tables={},
            datasets=self.states,
        )
        _, etag = await self.pipeline.store.read_state()
        await self.pipeline.store.replace_state(SourceState(run=self.runs, checkpoint=checkpoint), expected=etag)
        return found

    async def load(self, batches: Sequence[BatchIngested]) -> None:
        await self.pipeline.load(*[await self.pipeline.remodel(batch) for batch in batches])

    async def load_first(self) -> None:
        """Load two deliveries of each data set but the snapshot, which has one."""
        for batches in (
            await self.deliver(BUDGET, *FIRST_BUDGET, whole=True),
            await self.deliver(RATE, *FIRST_RATES),
            await self.deliver(TARGET, *FIRST_TARGETS),
            await self.deliver(RATE, ("EUR", 19782, 11800), ("EUR", 19783, 11900)),
            await self.deliver(TARGET, ("Ada", 6, 101)),
        ):
            await self.load(batches)

    @property
    def landing(self) -> dict[str, bytes]:
        return self.pipeline.objects.buckets[LANDING]

    async def proves(self, outcome: Outcome, *found: tuple[str, Difference]) -> str:
        """Require a verdict; return its sentence."""
        verdict = await self.pipeline.verify()
        assert (verdict.outcome, differences(verdict)) == (outcome, list(found))
        return verdict.sentence
