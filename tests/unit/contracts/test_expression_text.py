"""What an expression may contain, and in which words the rest is refused."""

from __future__ import annotations

import datetime as dt
import time
from decimal import Decimal

import pytest

from contracts.column_types import BIGINT, BOOLEAN, DATE, INTEGER, TEXT, TIMESTAMP, TIMESTAMPTZ, UUID, numeric, verbatim
from contracts.derived import derived
from contracts.expressions import Expression, ExpressionError, Literal, Operation, ReadColumn, Type

COLUMNS = {
    "quantity": INTEGER,
    "big": BIGINT,
    "price": numeric(10, 2),
    "name": TEXT,
    "Name": TEXT,
    "paid": BOOLEAN,
    "late": BOOLEAN,
    "day": DATE,
    "other": DATE,
    "sold_at": TIMESTAMP,
    "deleted_at": TIMESTAMPTZ,
    "id": UUID,
    "amount": verbatim("numeric"),
    "doc": verbatim("jsonb"),
    "list": verbatim("integer[]"),
    "boxes": verbatim("box[]"),
    'we"ird': TEXT,
}
NULLABLE = frozenset({"name", "day", "deleted_at"})


def find(path: tuple[str, ...]) -> tuple[ReadColumn, bool]:
    return column(*path), path[-1] in NULLABLE


def column(*path: str) -> ReadColumn:
    return ReadColumn(".".join(path[:-1]) or None, path[-1], COLUMNS[path[-1]])


def tree(text: str) -> Expression:
    return derived(text, find)[0]


def refusal(text: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        derived(text, find)
    return str(caught.value)


def test_a_text_becomes_a_tree() -> None:
    discounted = Operation("subtract", (Literal(1), Literal(Decimal("0.05"))))
    assert tree("quantity * product_id.maker.price * (1 - 0.05)") == Operation(
        "multiply", (Operation("multiply", (column("quantity"), column("product_id", "maker", "price"))), discounted)
    )


def test_spaces_comments_and_parentheses_make_no_difference() -> None:
    assert tree("quantity*price") == tree("( quantity ) -- the pieces\n * /* each */ ((price))")


@pytest.mark.parametrize("path", ["a.b.c.d.e.f.g.price", '"a"."b".price', "price"])
def test_a_path_has_any_number_of_steps(path: str) -> None:
    assert tree(path) == column(*path.replace('"', "").split("."))


def test_a_name_without_quotes_is_read_in_lower_case() -> None:
    assert (tree("NAME"), tree('"Name"')) == (column("name"), column("Name"))
    assert tree('"we""ird"') == column('we"ird')


def test_a_cast_of_an_unbounded_numeric_says_how_it_travels() -> None:
    assert tree("amount::numeric(12,2)") == ReadColumn(None, "amount", numeric(12, 2))
    assert "a value of another type" in refusal("amount * 2")


def test_parts_of_documents_arrays_and_texts_are_read() -> None:
    price = Operation("json_text", (Operation("json_part", (column("doc"), Literal("a.b"))), Literal(-1)))
    assert tree("(doc -> 'a.b' ->> -1)::numeric(9,2)") == Operation("round", (Operation("cast_decimal", (price,)), Literal(2)))
    assert tree("TRY_CAST(name AS date)") == Operation("try_cast_date", (column("name"),))
    assert tree("CAST(name AS integer)") == tree("name::bigint") == Operation("cast_whole", (column("name"),))
    assert tree("cardinality(list) + array_length(list, 1)").type is Type.WHOLE
    assert column("boxes").type is Type.OPAQUE  # their elements are not separated by commas


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("NOT paid = late", "NOT (paid = late)"),
        ("NOT name IS NULL", "NOT (name IS NULL)"),
        ("paid OR late AND paid", "paid OR (late AND paid)"),
        ("quantity - 1 - 2", "(quantity - 1) - 2"),
        ("quantity - 2 * 3", "quantity - (2 * 3)"),
        ("-quantity * 2", "(-quantity) * 2"),
        ("name || quantity::text", "name || (quantity::text)"),
        ("quantity NOT IN (1, 2)", "NOT (quantity IN (1, 2))"),
        ("quantity BETWEEN 1 AND 2 AND paid", "((quantity >= 1) AND (quantity <= 2)) AND paid"),
        ("CASE quantity WHEN 1 THEN 'a' END", "CASE WHEN quantity = 1 THEN 'a' ELSE NULL END"),
        ("date_trunc('month', sold_at)::date", "date_trunc('month', sold_at::date)::date"),
        ("substr(name, 2)", "substring(name FROM 2 FOR 8000000)"),
        ("day - 3", "day + -3"),
        ("CAST(big AS integer)", "big"),
    ],
)
def test_an_expression_means_what_postgresql_makes_of_it(text: str, meant: str) -> None:
    assert tree(text) == tree(meant)


def test_literals_keep_what_was_written() -> None:
    moment = dt.datetime.fromisoformat("2026-01-31 10:00:00")
    written = "COALESCE(NULLIF('it''s \\n', ''), 'x')", "sold_at = '2026-01-31 10:00:00'::timestamp", "day = DATE '2026-01-31'"
    found = [tree(text) for text in written]
    assert Literal("it's \\n") in found[0].arguments[0].arguments  # type: ignore[union-attr]
    assert found[1].arguments[1] == Literal(moment)  # type: ignore[union-attr]
    assert found[2].arguments[1] == Literal(moment.date())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "nullable"),
    [
        ("quantity * 2", False),
        ("quantity / NULLIF(big, 0)", True),
        ("name || 'x'", True),
        ("concat(name, 'x')", False),
        ("COALESCE(name, 'x')", False),
        ("COALESCE(name, left(name, 1))", True),
        ("deleted_at IS NOT NULL", False),
        ("CASE WHEN name = 'x' THEN 1 ELSE 2 END", False),
        ("CASE WHEN paid THEN 1 END", True),
        ("other - 1", False),
        ("concat(name)::integer", False),
        ("TRY_CAST(concat(name) AS integer)", True),
        ("doc ->> 'a'", True),
        ("cardinality(list)", False),
        ("array_length(list, 1)", True),
        ("day - 1", True),
    ],
)
def test_an_expression_may_be_null_unless_it_cannot(text: str, nullable: bool) -> None:  # noqa: FBT001
    assert derived(text, find)[1] is nullable


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("(SELECT 1)", "has a subquery"),
        ("EXISTS (SELECT 1)", "has a subquery"),
        ("quantity IN (SELECT 1)", "'query'"),
        ("sum(quantity) OVER ()", "has a window function"),
        ("sum(quantity)", "has the function sum()"),
        ("count(*)", "has the function count()"),
        ("*", "has *"),
        ("$1", "has a parameter"),
        (":name", "has a parameter"),
        ("name AS other", "has an alias"),
        ("quantity; quantity", "has several statements"),
        ("pg_sleep(1)", "has the function pg_sleep()"),
        ("pg_catalog.pg_sleep(1)", "in the path of a column"),
        ("upper(name)", "depends on the locale"),
        ("lower(name)", "depends on the locale"),
        ("now()", "has the function current_timestamp()"),
        ("CURRENT_DATE", "has the function current_date()"),
        ("random()", "has the function rand()"),
        ("name LIKE 'a%'", "has `like`"),
        ("name ~ 'a'", "regexp"),
        ('name COLLATE "C"', "has the function collate()"),
        ("interval '1 day'", "has `interval`"),
        ("ARRAY[1]", "array"),
        ("quantity % 2", "has `mod`"),
        ("paid IS TRUE", "has `is`"),
        ("E'a'", "has `bytestring`"),
        ("date_trunc('month', sold_at)", "has the function timestamp_trunc()"),
        ("doc #>> '{a}'", "has the function"),
        ("DROP TABLE sale", "has `drop`"),
        ("pg_class::regclass", ""),
    ],
)
def test_a_construct_that_is_not_on_the_list_is_refused_by_its_name(text: str, construct: str) -> None:
    COLUMNS["pg_class"] = TEXT
    assert construct in refusal(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "name::regclass",
            "has a cast of a text to regclass; allowed are casts of a number or a text to integer, bigint and numeric(p,s)",
        ),
        ("price::float", "has a cast of a decimal to double precision; allowed"),
        ("name::double precision", "has a cast of a text to double precision; allowed"),
        ("name::numeric", "has a cast to decimal: write numeric(p,s)"),
        ("deleted_at AT TIME ZONE 'Europe/London'", "has AT TIME ZONE with something else than 'UTC'"),
        ("sold_at AT TIME ZONE 'UTC'", "has `AT TIME ZONE` with a timestamp, but it takes a timestamptz"),
        ("doc ->> name", "has `column` behind -> or ->>, which take a literal: a key or a place"),
        (
            "doc ->> 2147483648",
            "has `->>` with a jsonb value, a whole number, but it takes a jsonb value, a text or a whole number as a",
        ),
        ("name ->> 'a'", "has `->>` with a text, a text, but it takes a jsonb value"),
        ("price::text", "has a cast of a decimal to text; allowed"),
        ("price::numeric", "write numeric(p,s) of at most 18 digits, such as numeric(12,2)"),
        ("price::numeric(20,2)", "write numeric(p,s) of at most 18 digits"),
        ("quantity::integer[]", "has a cast of a whole number to int[]; allowed"),
        (
            "price / quantity",
            "has `/` with a decimal, a whole number, but it takes a number, a number, the second as NULLIF(…, 0)",
        ),
        ("price / NULLIF(quantity, 1)", "the second as NULLIF(…, 0)"),
        ("name < 'b'", "the order of texts depends on a collation"),
        ("quantity = NULL", "IS NULL"),
        ("day > '2026-01-01'", "has `>` with a date, a text"),
        ("day = '2026-01-01'", "DATE '2026-01-31'"),
        ("id = id", "has `=` with a value of another type"),
        (
            "quantity || name",
            "has `||` with a whole number, a text, but it takes a text, a text (of a whole number: number::text)",
        ),
        ("quantity IN (big)", "all but the first as literals"),
        ("quantity + day", "has `+` with a whole number, a date"),
        ("day - true", "has `-` with a date, a boolean"),
        ("day + quantity", "a date and a literal number of days"),
        ("day + 36526", "has `+ or -` with a date, a whole number, but it takes a date, a literal from -36525 to 36525"),
        ("left(name, -1)", "has `left` with a text, a whole number, but it takes a text, a literal from 0 to"),
        ("substring(name FROM 0)", "a literal from 1 to"),
        ("round(price)", "has `round` with a decimal, but it takes a number, a literal from 0 to 18"),
        ("replace(name, '', 'x')", "the second is not empty"),
        ("trim('x' FROM name)", "has the function trim() with 'expression', which is not allowed"),
        ("extract(epoch FROM sold_at)", "has extract of 'epoch', but it takes year, quarter, month, day, dow, hour, minute"),
        ("extract(hour FROM day)", "has `extract(hour …)` with a date, but it takes a timestamp"),
        ("date_trunc('week', day)::date", "has date_trunc of 'week', but it takes month, quarter, year"),
        ("CASE WHEN quantity THEN 1 END", "booleans as conditions, and values of one type"),
        ("CASE WHEN paid THEN NULL END", "booleans as conditions, and values of one type"),
        ("COALESCE(name, quantity)", "has `coalesce` with a text, a whole number, but it takes a value, …, of one type"),
        ("DATE '2026-02-30'", "has '2026-02-30' as a date: write YYYY-MM-DD"),
        ("DATE '2026-W01-1'", "write YYYY-MM-DD"),
        ("DATE 'today'", "write YYYY-MM-DD"),
        ("TIMESTAMP '2026-01-01'", "write YYYY-MM-DD HH:MM:SS"),
        ("1e5", "has the number 1e5: write it in digits"),
        ("1" * 39, "has a number of more than 38 digits"),
        ("'a\x00b'", "the character NUL"),
        ("paid = NOT late", "has `not` as a part of `eq`: put it in parentheses"),
        ("(quantity", "cannot be read at line 1, column"),
        ("'open", "cannot be read"),
        ("", "cannot be read"),
        ("quantity price", "has an alias"),
        ("quantity, price", "cannot be read at line 1"),
    ],
)
def test_a_rule_that_is_broken_is_named(text: str, reason: str) -> None:
    assert reason in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        *("(" * 900 + "1" + ")" * 900, "NOT " * 400 + "paid", "- " * 900 + "1", "+" * 1000 + "1", "CASE " * 300, "[" * 900),
        *("1" + "+1" * 90, "name" + "||name" * 90, "paid" + " AND paid" * 90, "COALESCE(" * 200, "CASE WHEN paid THEN " * 90),
        "a" + ".a" * 900 + ".b(" * 31,
    ],
)
def test_a_deep_nesting_is_refused_at_once(text: str) -> None:
    assert "nested more than 30 deep" in refusal(text[:2_000])


@pytest.mark.parametrize(
    "text",
    [
        "(" * 28 + "paid" + " BETWEEN paid AND late)" * 28,
        "CASE " * 20 + "1" + " WHEN 1 THEN 1 WHEN 2 THEN 1 WHEN 3 THEN 1 WHEN 4 THEN 1 END" * 20,
        "ARRAY<" * 300,
        "1::" + "ARRAY<" * 300,
        "1" + "+1" * 990,
        "name" + "||name" * 300,
    ],
)
def test_what_would_grow_beyond_all_bounds_is_refused_at_once(text: str) -> None:
    begun = time.monotonic()
    assert refusal(text)
    assert time.monotonic() - begun < 5


def test_an_expression_is_bounded() -> None:
    assert "has 2,001 characters, of which at most 2,000 are allowed" in refusal("1" * 2_001)
    balanced = "quantity"
    while len(balanced) < 900:
        balanced = f"({balanced}+{balanced})"
    assert "has more than 200 operations, columns and literals" in refusal(balanced.replace("quantity", "big"))
    doubled = "replace(name, 'a', 'bbbb')"
    for _ in range(5):
        doubled = f"({doubled}||{doubled})"
    assert "could make a text of 12,800,000 characters" in refusal(doubled)
    grown = f"replace(name, 'a', '{'b' * 81}')"
    assert "could make a text of 8,100,000 characters" in refusal(grown)
    assert tree(grown.replace("name", "left(name, 90000)")).type is Type.TEXT
