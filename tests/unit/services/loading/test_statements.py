from __future__ import annotations

import re
from dataclasses import replace

import pytest

from contracts.column_types import INTEGER, varchar
from contracts.origins import FromSource
from contracts.tables import (
    NAME_BYTES_MAXIMUM,
    TABLE_NAME_BYTES_MAXIMUM,
    Column,
    ContractError,
    Dimension,
    Fact,
    Versions,
    WarehouseTable,
)
from services.loading.deletes import add_deletions, insert_tombstones, is_dead, update_deleted_at
from services.loading.merge import (
    add_missing_versions,
    add_versions,
    create_staging,
    insert_inferred_members,
    merge_staged,
    restore_unknown,
    select_referred_dates,
    staging_name,
)
from shared.star_schema.schema import create_statements, foreign_keys
from shared.star_schema.views import create_view, views
from tests.fixtures.small_contract import DIM_DAY, DIM_ITEM, DIM_MAKER, DIM_SHELF, FACT_SALE, SHOP, with_column, with_table
from tests.fixtures.totesys import CONTRACT

EVIL = 'x"; DROP TABLE "y'


def outside_names(statement: str) -> str:
    return re.sub(r'"(?:[^"]|"")*"', "", statement)


@pytest.mark.parametrize("contract", [CONTRACT, SHOP])
def test_foreign_key_names_fit_within_the_limit_of_postgresql(contract: object) -> None:
    names = [name for name, _ in foreign_keys(contract)]  # type: ignore[arg-type]
    assert len(set(names)) == len(names)
    assert max(len(name.encode()) for name in names) <= NAME_BYTES_MAXIMUM


def test_long_similar_names_give_different_constraint_names() -> None:
    long = "fact_" + "s" * (TABLE_NAME_BYTES_MAXIMUM - 5)
    columns = tuple(Column(f"item_{'i' * 50}_{end}", INTEGER, FromSource("item_id"), references="dim_item") for end in "ab")
    fact = replace(FACT_SALE, name=long, columns=(*FACT_SALE.columns, *columns))
    contract = replace(SHOP, warehouse_tables=(*SHOP.warehouse_tables[:-1], fact))
    names = [name for name, _ in foreign_keys(contract)]
    assert len(set(names)) == len(names)
    assert max(len(name.encode()) for name in names) <= NAME_BYTES_MAXIMUM
    assert names == [name for name, _ in foreign_keys(contract)]
    assert len(staging_name(fact).encode()) <= NAME_BYTES_MAXIMUM


def test_a_name_that_postgresql_would_truncate_is_refused() -> None:
    table, column = "d" * (TABLE_NAME_BYTES_MAXIMUM + 1), "ü" * 32
    with pytest.raises(ContractError, match=rf"^'{table}' has more than {TABLE_NAME_BYTES_MAXIMUM} bytes; shorten the name$"):
        replace(SHOP, warehouse_tables=(DIM_DAY, replace(DIM_MAKER, name=table)))
    with pytest.raises(ContractError, match=rf"^'dim_maker.{column}' has more than 63 bytes; shorten the name$"):
        with_table(SHOP, with_column(DIM_MAKER, Column(column, INTEGER, FromSource("maker_id"))))


def test_hostile_names_are_quoted() -> None:
    plain = with_column(replace(DIM_MAKER, name=EVIL), Column(EVIL, INTEGER, FromSource("maker_id")))
    assert isinstance(plain, Dimension)
    dimension = replace(plain, surrogate=f"{EVIL}#", history=True)
    referring = with_column(FACT_SALE, replace(FACT_SALE.column("item_id"), references=EVIL))
    assert isinstance(referring, Fact)
    fact = replace(referring, as_of=("sold_date", "sold_time"))
    contract = replace(SHOP, warehouse_schema=EVIL, warehouse_tables=(DIM_DAY, dimension, fact))
    versions = contract.stored_tables[-1]
    assert isinstance(versions, Versions)
    statements = [
        *create_statements(contract, contract.stored_tables),
        add_versions(contract, dimension, versions),
        add_missing_versions(contract, dimension, versions),
        add_deletions(contract, versions),
        add_deletions(contract, versions, of_tombstones=dimension.name),
        *(create_view(contract, view) for view in views(contract)),
        create_staging(dimension),
        merge_staged(contract, dimension),
        *restore_unknown(contract, replace(dimension, unknown=EVIL)),
    ]
    assert all("DROP TABLE" not in outside_names(statement) for statement in statements)


def test_an_unreferenced_dimension_needs_no_inferred_members() -> None:
    assert insert_inferred_members(SHOP, DIM_SHELF, (FACT_SALE,)) is None
    assert insert_inferred_members(SHOP, DIM_ITEM, ()) is None
    assert insert_inferred_members(SHOP, DIM_ITEM, (FACT_SALE,)) is not None
    assert select_referred_dates(SHOP, DIM_DAY, ()) is None
    assert select_referred_dates(SHOP, DIM_DAY, (FACT_SALE,)) is not None


def test_a_merge_ignores_images_of_earlier_runs_and_always_writes_its_run() -> None:
    for table in CONTRACT.warehouse_tables[1:]:
        statement = merge_staged(CONTRACT, table)
        assert statement.endswith("WHERE excluded._run >= t._run")
        assert "_run = excluded._run" in statement
        assert "SELECT DISTINCT ON" in statement


def test_an_inferred_member_fits_a_bounded_text() -> None:
    bounded = with_column(DIM_MAKER, Column("code", varchar(3), FromSource("town")))
    statement = insert_inferred_members(SHOP, bounded, (replace_reference(FACT_SALE, "dim_maker"),))
    assert "left('(unknown)', 3)" in str(statement)


def test_the_text_key_of_a_tombstone_is_not_truncated_to_another_row_s_key() -> None:
    shelf = replace(
        DIM_SHELF, columns=tuple(replace(c, type=varchar(3)) if c.name == "label" else c for c in DIM_SHELF.columns)
    )
    versions = Versions("dim_shelf_versions", shelf.key, shelf.columns)
    history = add_deletions(SHOP, versions)
    for statement in (insert_tombstones(SHOP, shelf), update_deleted_at(SHOP, shelf), is_dead(SHOP, shelf), history):
        assert "::integer" in statement
        assert "varchar" not in statement
    assert "WHERE true AND length(k1) <= 3" in history


def replace_reference(fact: WarehouseTable, dimension: str) -> WarehouseTable:
    """The fact with its references pointed at `dimension`."""
    columns = tuple(replace(column, references=dimension) if column.references else column for column in fact.columns)
    return replace(fact, columns=columns)
