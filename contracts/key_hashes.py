"""Hashes of keys by bucket: what a run that compares keys reports about the rows that it did not read.

The rows that it did read are in its batches. Where a bucket of the warehouse has the same count and sum, both sides hold the
same keys; where it differs, loading asks ingestion to look up what the warehouse holds. Hashes never delete anything.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from contracts.objects import Name
from contracts.tables import RemodelledTable

# A key's hash is the beginning of the SHA-256 of its text in UTF-8, cut in two: the first 16 bits choose the bucket, and the
# others are summed up. SHA-256 is the same in every version and encoding of PostgreSQL, and in FIPS mode.
BUCKET_BITS = 16
SUMMED_BITS = 48
BUCKETS_MAXIMUM = 2**BUCKET_BITS  # 10 bytes each when compressed: 0.7 MB for a table of any size
# A bucket that lacks several keys costs as many look-ups as it has keys; where it lacks one, its hash names it. So buckets are
# small, a third of a byte for each key, until there are as many as there may be.
KEYS_PER_BUCKET = 32


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableHashes(_Closed):
    """The keys of one source table, apart from those of rows that the run read. A power of two of buckets."""

    table: Name  # of the source
    star_table: Name | None = None  # of the warehouse, if these are the rows that its filter accepts; None: every row
    counts: tuple[Annotated[int, Field(ge=0)], ...]  # keys in each bucket
    sums: tuple[Annotated[int, Field(ge=0)], ...]  # of the hashes in each bucket
    # A table that is empty is usually a mistake, and not compared. A person has said that this one is really empty.
    believe_empty: bool = False

    def is_of(self, table: RemodelledTable) -> bool:
        """Whether the rows of a warehouse table are compared with these."""
        return self.table == table.source and self.star_table == (None if table.where is None else table.name)

    @model_validator(mode="after")
    def _whole(self) -> TableHashes:
        size = len(self.counts)
        if size != len(self.sums) or not 0 < size <= BUCKETS_MAXIMUM or size & (size - 1):
            raise ValueError("counts and sums must have one number for each of a power of two of buckets")
        return self


class KeyHashes(_Closed):
    """The hashes of every table whose keys a run compares: gzipped JSON in the bucket."""

    run: Annotated[int, Field(ge=1)]
    # The last run that completed before it: one in between was killed, and some of its batches may never come. None: unknown.
    previous: int | None = None
    taken_at: AwareDatetime  # the run's snapshot, by the source's clock
    tables: tuple[TableHashes, ...]


class RejectedKeys(_Closed):
    """The rows of a batch that filters leave out, by warehouse table: gzipped JSON in the bucket. They are as good as gone."""

    tables: dict[Name, tuple[tuple[int | str, ...], ...]]
