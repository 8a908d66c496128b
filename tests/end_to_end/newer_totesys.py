"""The contract of a newer build: staff also keeps the number of its department."""

from __future__ import annotations

from contracts.column_types import INTEGER
from contracts.origins import FromSource
from contracts.tables import Column
from contracts.totesys import CONTRACT as OLDER
from tests.fixtures.small_contract import with_column, with_table

CONTRACT = with_table(
    OLDER, with_column(OLDER.warehouse_table("dim_staff"), Column("department_id", INTEGER, FromSource("department_id")))
)
