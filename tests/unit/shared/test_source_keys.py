from __future__ import annotations

import pytest

from shared.source_keys import Key, misspelled_column, select_found_keys
from tests.fixtures.small_contract import MAKER, SHELF, SHOP


def test_key_lookups_use_the_index_and_return_json_arrays() -> None:
    assert select_found_keys(SHOP, SHELF, [(1, "a'b"), (2, "")]) == (
        """SELECT json_build_array("t"."row", "t"."label"::text) FROM "public"."shelf" AS t """
        """WHERE ("t"."row", "t"."label") IN (VALUES ((SELECT "k"."row" FROM "public"."shelf" AS k WHERE false), """
        """(SELECT "k"."label" FROM "public"."shelf" AS k WHERE false)), (1, 'a''b'), (2, ''))"""
    )
    assert select_found_keys(SHOP, MAKER, [(1,), (2,)]).endswith(' AS t WHERE "t"."maker_id" IN (1, 2)')


@pytest.mark.parametrize(
    ("key", "name"), [((1, "a"), None), ((1, "a\x00"), "label"), ((2**31, 7), "row"), (("1", "a"), "row"), ((1, 7), "label")]
)
def test_the_key_column_with_an_impossible_value_is_named(key: Key, name: str | None) -> None:
    assert misspelled_column(SHELF, key) == name
