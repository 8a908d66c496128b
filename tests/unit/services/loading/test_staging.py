from __future__ import annotations

from typing import cast

import asyncpg
import pandas as pd

from services.loading.merge import insert_inferred_members, staging_name
from services.loading.staging import Staged
from tests.fixtures.small_contract import DIM_ITEM, DIM_MAKER, FACT_SALE, SHOP

FRAME = pd.DataFrame({name: pd.Series([None, None], dtype="object") for name in FACT_SALE.star_types})


def staged(*item_ids: int) -> Staged:
    frame = FRAME.assign(item_id=list(item_ids) or None)
    return Staged(cast("asyncpg.Connection", None), {staging_name(FACT_SALE): (FACT_SALE, frame)})


def test_a_statement_brings_along_only_the_columns_that_it_names() -> None:
    insert = insert_inferred_members(SHOP, DIM_ITEM, (FACT_SALE,))
    assert insert is not None
    statement, arguments = staged(1, 2).bound(insert, "batch")
    assert statement == (f'WITH "staged_fact_sale" ("item_id") AS (SELECT * FROM unnest($2::bigint[])) {insert}')
    assert arguments == ("batch", [1, 2])


def test_a_statement_about_other_rows_stays_as_it_is() -> None:
    assert staged().bound(f'SELECT FROM "{staging_name(DIM_MAKER)}"', 1) == (f'SELECT FROM "{staging_name(DIM_MAKER)}"', (1,))
    in_tables = Staged(cast("asyncpg.Connection", None))
    assert in_tables.bound(f'SELECT FROM "{staging_name(FACT_SALE)}"') == (f'SELECT FROM "{staging_name(FACT_SALE)}"', ())
