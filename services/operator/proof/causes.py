"""Why a row may differ although nothing is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

from contracts.tables import RemodelledTable


@unique
class Wait(StrEnum):
    """What brings a row that differs."""

    RUN = "run"  # the next run: the row was written after the last one began
    BATCH = "batch"  # a batch that was announced and is not loaded
    COMPARISON = "comparison"  # the next comparison of keys: the row, or its partner, was deleted at the source
    EMPTY = "empty"  # a person's decision: the source table has no row left
    KEY = "key"  # the loader: the table's unique key was dropped, so a row may be in it twice


@dataclass(frozen=True, slots=True)
class Cause:
    """What a row waits for. It is *in flight* while that is on its way, and *stuck* once that is late or needs a person."""

    wait: Wait
    reason: str = ""  # of a stuck row: what it waits for, and what to do

    @property
    def is_stuck(self) -> bool:
        """Whether the row is late, or will not arrive without a person."""
        return bool(self.reason)

    @property
    def may_pass(self) -> bool:
        """Whether a run that is loaded in the next seconds may bring the row."""
        return not self.is_stuck or self.wait is Wait.RUN


@dataclass(frozen=True, slots=True)
class Unseen:
    """What the rows of a table wait for; None for a row that the warehouse should have."""

    steps: tuple[tuple[int, Cause | None], ...] = ()  # of rows not older than a horizon, youngest horizon first
    beyond: Cause | None = None  # of all older rows
    orphans: Cause | None = None  # of rows whose partner is gone
    versionless: frozenset[str] = frozenset()  # source tables whose transaction ids the role may not read

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Each cause once: SQL returns its place here. After the next run come the batches that are missing longest."""
        younger = [cause for _, cause in self.steps]
        ordered = (*younger[:1], self.beyond, *reversed(younger[1:]), self.orphans)
        return tuple(dict.fromkeys(cause for cause in ordered if cause is not None))

    @property
    def places(self) -> dict[Cause | None, str]:
        """The place of each cause, as SQL."""
        return {None: "NULL"} | {cause: str(place) for place, cause in enumerate(self.causes)}


def sources_of(table: RemodelledTable) -> frozenset[str]:
    """The source tables that rows of `table` are built from."""
    return frozenset((table.source, *(lookup.table for lookup in table.lookups)))
