"""Bundles: all rows of a small batch in one object, as gzipped JSON.

A table of its own object costs a request to write it, one to read it, and a file's frame around a few rows: more than the rows
themselves. A batch above the limits of ingestion has a Parquet object for each table instead.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableRows(_Closed):
    """The rows of one table, column by column."""

    columns: dict[
        str, list[Any]
    ]  # a value a row, in its form in a data frame (shared.codecs): whole number, text, boolean, null
    scales: dict[str, int] = {}  # of decimals, where it is not 0: a value is the number times 10^scale
    carried: tuple[str, ...] = ()  # the columns that no contract knows

    @property
    def known(self) -> list[str]:
        """The columns that the contract knows by which the rows were written."""
        return [name for name in self.columns if name not in self.carried]


class Bundle(_Closed):
    """The rows of a batch, by the name that an object of their own would have: `extract_name`, or the warehouse's table."""

    tables: dict[str, TableRows]
