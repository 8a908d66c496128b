"""The rows that the warehouse could not hold, as the quarantine stores them: JSON lines in the processed bucket."""

from __future__ import annotations

from pydantic import BaseModel

RECORD = "(record)"  # what the beginning of a record's text is called among the values of a row


class Problem(BaseModel, frozen=True, extra="ignore"):
    """Why a row was refused."""

    column: str  # of the warehouse table; empty if the row as a whole is the problem
    reason: str  # a clause that follows the column's name: "is longer than 3"


class RefusedRow(BaseModel, frozen=True, extra="ignore"):
    """One line: a source row that one warehouse table could not hold, as one batch saw it."""

    table: str  # the warehouse table
    source_table: str
    key: dict[
        str, int | str
    ]  # the source's key, in the order of its columns: whole numbers, anything else as PostgreSQL's text; empty for a record
    # Of a delivery, whose key can't be read, or that has the key of another one: where it is, "line 3 of dropzone/…".
    record: str | None = None
    problems: tuple[Problem, ...]
    row: dict[str, int | bool | str | None]  # every source column as a person writes it; long texts are cut
    # Of a data set with a version: the row's whole run, 0 for none, and its version as the extract has it, a whole number.
    order: tuple[int, int | None] = (0, None)
