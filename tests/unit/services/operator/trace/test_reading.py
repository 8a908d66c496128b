from __future__ import annotations

import pytest

from contracts.column_types import UUID, varchar
from contracts.origins import FromSource
from contracts.tables import Column, Dimension
from services.operator.errors import UsageError
from services.operator.star_keys import table_named
from services.operator.trace.reading import parsed_key
from shared.ledger import key_parameter
from tests.fixtures.totesys import CONTRACT


@pytest.mark.parametrize(
    ("table", "key", "complaint"),
    [
        ("payment", ["3"], r"contract 'totesys' has no warehouse table 'payment'; it has dim_date, .*, fact_payment$"),
        ("dim_staff", ["1", "2"], r"is named by 1 of its columns \(staff_id\), not by 2 values; give one value for each"),
        (
            "dim_staff",
            ["three"],
            r"^'staff_id' is a whole number from -2147483648 to .*, not 'three'; correct the key$",
        ),
        ("dim_staff", ["2147483648"], r"'staff_id' is a whole number from -2147483648 to 2147483647, not '2147483648'"),
        ("dim_staff", ["3.0"], "'staff_id' is a whole number"),
        ("dim_staff", ["1_0"], "'staff_id' is a whole number"),
        ("dim_staff", [""], "'staff_id' is a whole number"),
        ("dim_date", ["2023-02-30"], r"'date_id' is a date \(YYYY-MM-DD\), not '2023-02-30'; correct the key"),
    ],
    ids=str,
)
def test_arguments_that_name_no_row_are_a_usage_error(table: str, key: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parsed_key(table_named(CONTRACT, table), key)


def test_a_text_key_is_not_truncated_to_the_length_of_its_column() -> None:
    """A cast to varchar(3) would find the row 'abc' for 'abcd'."""
    code = Column("code", varchar(3), FromSource("code"))
    table = Dimension("dim_code", ("code",), (code,), "code")
    assert key_parameter(table, 0) == "$1::text::text"
    assert key_parameter(CONTRACT.warehouse_table("dim_staff"), 0, first=2) == "$2::text::integer"


def test_a_uuid_may_be_typed_in_upper_case() -> None:
    table = Dimension("dim_x", ("id",), (Column("id", UUID, FromSource("id")),), "x")
    assert parsed_key(table, ["{5E1F1C1E-57A7-5C4E-8A3A-0D1F7A5E9B21}"]) == ("5e1f1c1e-57a7-5c4e-8a3a-0d1f7a5e9b21",)
    with pytest.raises(UsageError, match="'id' is a uuid, not 'x'; correct the key"):
        parsed_key(table, ["x"])


def test_a_text_that_is_not_utf_8_is_escaped_in_the_error() -> None:
    table = Dimension("dim_code", ("code",), (Column("code", varchar(3), FromSource("code")),), "code")
    with pytest.raises(UsageError, match=r"'code' is a text in UTF-8 without a NUL, not '\\udcff'; correct the key"):
        parsed_key(table, ["\udcff"])


def test_the_smallest_integer_is_accepted_as_a_key() -> None:
    assert parsed_key(CONTRACT.warehouse_table("dim_staff"), ["-2147483648"]) == (-2147483648,)
