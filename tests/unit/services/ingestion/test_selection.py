from __future__ import annotations

import re
from dataclasses import replace

import pytest

from contracts.column_types import INTEGER, TEXT
from contracts.messages import KeyRange
from contracts.tables import SourceColumn, SourceTable
from services.ingestion.selection import Selection
from shared.codecs.codec import MIB
from shared.sql import quoted
from tests.fixtures.joined_contract import JOINED, LINE
from tests.fixtures.small_contract import ITEM, SHELF, SHOP
from tests.fixtures.totesys import CONTRACT

HORIZON = 5 * 2**32 + 1234
NOTHING: frozenset[str] = frozenset()
MANY = 10**9


def changes(*full_tables: str, horizon: int = HORIZON) -> Selection:
    return Selection(CONTRACT, frozenset(full_tables), horizon)


def where(statement: str) -> str:
    return statement.partition(" WHERE ")[2].partition(" ORDER BY ")[0]


def page(selection: Selection, table: str) -> str:
    return selection.page(CONTRACT.source_table(table), within=KeyRange(), limit=10, byte_limit=MANY)[-1]


def test_a_table_without_partners_is_read_only_by_its_own_changes() -> None:
    assert where(page(changes(), "design")) == "(age(t.xmin) BETWEEN 0 AND age('1234'::xid))"


def test_a_row_is_affected_when_its_partner_changed() -> None:
    condition = where(page(changes(), "staff"))
    assert condition.startswith("(age(t.xmin) BETWEEN 0 AND age('1234'::xid) OR EXISTS (")
    assert '"public"."department" AS p1 WHERE "p1"."department_id" = "t"."department_id" AND age(p1.xmin) BETWEEN' in condition
    assert '"p1"."address_id" = "t"."legal_address_id"' in where(page(changes(), "counterparty"))


def test_every_lookup_of_the_contract_is_part_of_the_closure() -> None:
    for table in CONTRACT.source_tables:
        condition = where(page(changes(), table.name))
        for path in CONTRACT.paths_of(table.name):
            assert quoted("public", path[-1].table) in condition
        assert condition.count("EXISTS") == len(CONTRACT.paths_of(table.name))


def test_a_row_whose_partner_was_deleted_is_read_when_keys_are_compared() -> None:
    statement = page(replace(changes(), orphans=True), "staff")
    assert 'AS t LEFT JOIN "public"."department" AS p1 ON "p1"."department_id" = "t"."department_id" WHERE (' in statement
    condition = """ OR ("t"."department_id" IS NOT NULL AND "p1"."department_id" IS NULL))"""
    assert where(statement).endswith(condition)
    assert "JOIN" not in page(replace(changes(), orphans=True), "design")


def test_a_path_is_joined_in_one_subquery_up_to_the_partner_that_changed() -> None:
    condition = where(Selection(JOINED, NOTHING, HORIZON).page(LINE, within=KeyRange(), limit=1, byte_limit=MANY)[-1])
    assert (
        'EXISTS (SELECT FROM "public"."order header" AS p1 JOIN "public"."employee" AS p2 '
        'ON "p2"."employee_id" = "p1"."seller_id" WHERE "p1"."order_id" = "t"."order_id" AND age(p2.xmin)'
    ) in condition
    assert condition.count("EXISTS") == len(JOINED.paths_of("line"))


def test_a_table_that_is_read_in_full_has_no_unread_keys_to_hash() -> None:
    assert changes("department").unread_hashes(CONTRACT.source_table("staff")) is None
    assert Selection(CONTRACT, NOTHING, None).unread_hashes(CONTRACT.source_table("design")) is None


def test_the_hashed_keys_are_those_of_rows_that_no_page_holds() -> None:
    selection = replace(changes(), orphans=True)
    hashes = selection.unread_hashes(CONTRACT.source_table("staff"))
    assert hashes is not None
    assert hashes.partition(" WHERE ")[2] == f"{where(page(selection, 'staff'))} IS NOT TRUE"


def test_tables_that_join_a_fully_read_table_are_also_read_in_full() -> None:
    selection = changes("department")
    assert where(page(selection, "department")) == "true"
    assert where(page(selection, "staff")) == "true"
    assert where(page(selection, "counterparty")) != "true"


def test_without_a_horizon_everything_is_read() -> None:
    selection = Selection(CONTRACT, NOTHING, None)
    assert {where(page(selection, table.name)) for table in CONTRACT.source_tables} == {"true"}


@pytest.mark.parametrize(
    ("horizon", "xid"), [(3, 3), (2**32 - 1, 2**32 - 1), (2**32, 0), (2**32 + 7, 7), (HORIZON, 1234), (2**63 - 1, 2**32 - 1)]
)
def test_a_64_bit_horizon_is_compared_with_the_32_bits_that_rows_store(horizon: int, xid: int) -> None:
    assert re.findall(r"age\('(\d+)'::xid\)", page(changes(horizon=horizon), "staff")) == [str(xid)] * 2


def test_a_page_begins_after_the_last_key_of_the_previous_page() -> None:
    statement = Selection(SHOP, NOTHING, None).page(SHELF, within=KeyRange(after=(3, "it's")), limit=7, byte_limit=MANY)[-1]
    assert where(statement) == """true AND ("t"."row", "t"."label") > (3, 'it''s')"""
    assert ' ORDER BY "t"."row", "t"."label" LIMIT 7' in statement


def test_partners_are_read_by_their_keys() -> None:
    statement = changes().partners(CONTRACT.source_table("department"), [(3,), (1,)], byte_limit=MANY)
    assert (
        'FROM "public"."department" AS t WHERE "t"."department_id" IN (3, 1) ORDER BY "t"."department_id" LIMIT 2' in statement
    )
    by_name = replace(SHELF, key=("label",))
    contract = replace(SHOP, source_tables=(*SHOP.source_tables[:2], by_name), warehouse_tables=())
    statement = Selection(contract, NOTHING, None).partners(by_name, [("'); DROP TABLE shelf; --",), ("b",)], byte_limit=MANY)
    assert """WHERE "t"."label" IN ('''); DROP TABLE shelf; --', 'b') ORDER BY""" in statement


def test_hostile_names_are_quoted() -> None:
    evil = 'a"; DROP TABLE "b'
    table = SourceTable(evil, (evil,), (SourceColumn(evil, INTEGER), SourceColumn("select", TEXT)))
    contract = replace(SHOP, source_schema=evil, source_tables=(table,), warehouse_tables=())
    statement = Selection(contract, NOTHING, HORIZON).page(table, within=KeyRange(after=(1,)), limit=1, byte_limit=MANY)[-1]
    assert '"a""; DROP TABLE ""b"."a""; DROP TABLE ""b" AS t' in statement
    assert ' THEN "t"."select"::text END AS "value 1" FROM ' in statement
    assert '"value 1" AS "select" FROM ' in statement
    without_names = re.sub(r'"(?:[^"]|"")*"', "", statement)
    assert "DROP" not in without_names


def test_the_defect_column_comes_first_and_names_values_that_cannot_be_transferred() -> None:
    columns = Selection(SHOP, NOTHING, None).page(ITEM, within=KeyRange(), limit=1, byte_limit=MANY)[-1].partition(" FROM ")[0]
    assert re.match(r'SELECT CASE WHEN "value \d+" IS NULL AND "t"."price" IS NOT NULL OR ', columns)
    assert " THEN nullif(concat_ws('; ', CASE WHEN" in columns
    assert """CASE WHEN "t"."price" = 'NaN'::numeric THEN 'price is NaN' END""" in columns
    assert """CASE WHEN NOT isfinite("t"."born") THEN 'born is infinite' END""" in columns
    assert """CASE WHEN NOT isfinite("t"."sold_at") THEN 'sold_at is infinite' END""" in columns
    assert (
        Selection(SHOP, NOTHING, None)
        .page(SHELF, within=KeyRange(), limit=1, byte_limit=MANY)[-1]
        .startswith('SELECT NULL::text AS "_defect"')
    )


def test_bytes_are_added_up_together_first_where_every_row_is_read_and_texts_have_them_stored() -> None:
    together, _ = Selection(SHOP, NOTHING, None).page(ITEM, within=KeyRange(after=(7,)), limit=5, byte_limit=MIB)
    assert "OVER" not in together
    assert together.count("LIMIT 5") == 2
    assert f") < {MIB} ORDER BY" in together
    assert len(Selection(SHOP, NOTHING, HORIZON).page(ITEM, within=KeyRange(), limit=5, byte_limit=MIB)) == 1
    assert len(Selection(SHOP, NOTHING, None).page(ITEM, within=KeyRange(), limit=5, byte_limit=MANY)) == 1
