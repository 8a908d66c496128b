from __future__ import annotations

import pytest

from shared.lock_waits import LockWait, without_literals


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT * FROM fact_sale WHERE name = 'O''Hara' AND id = 42", "SELECT * FROM fact_sale WHERE name = ? AND id = ?"),
        ("UPDATE t SET a = 1.5e3, b = $1 -- it's secret\n WHERE c2 = ''", "UPDATE t SET a = ?, b = $1 WHERE c2 = ?"),
        ("SELECT $tag$ it's a secret $tag$, /* secret */ \"Column 1\" FROM t", 'SELECT ?, "Column 1" FROM t'),
        ("INSERT INTO t VALUES ('cut in the middle of a secr", "INSERT INTO t VALUES (?"),
        ("SELECT $$cut", "SELECT ?"),
        (r"SELECT * FROM t WHERE a = E'it\'s a secret' AND b = 'c'", "SELECT * FROM t WHERE a = E …"),
        (f"SELECT {', '.join('abc' for _ in range(100))}", f"SELECT {', '.join('abc' for _ in range(100))}"[:199] + "…"),
    ],
)  # fmt: skip
def test_a_query_is_shown_without_its_values(query: str, expected: str) -> None:
    assert without_literals(query) == expected


def test_the_holder_of_a_lock_is_described_by_what_is_known() -> None:
    known = LockWait(1, "starlift", 7, "ada", "psql", "active", "DELETE FROM t WHERE id = 5")
    assert str(known) == "session 7 (ada, psql, active, DELETE FROM t WHERE id = ?)"
    assert str(LockWait(1, "starlift", 7, "ada", "", None, None)) == "session 7 (ada)"
    assert str(LockWait(1, "starlift", 0, None, None, None, None)) == "a prepared transaction (see pg_prepared_xacts)"
