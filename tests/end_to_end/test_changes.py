"""Rows that are deleted, refused or corrected, as a user at the command line sees them."""

from __future__ import annotations

import json

from tests.end_to_end.conftest import Databases, Starlift, wait_until

PAYMENTS = "SELECT payment_id FROM fact_payment_current WHERE payment_id = ANY ($1::int[])"


def held(databases: Databases, *payments: int) -> set[int]:
    """Those of the given payments that the warehouse has."""
    return {row["payment_id"] for row in databases.read(PAYMENTS, list(payments))}


def test_a_deleted_row_is_found_on_request(shared: Starlift, databases: Databases) -> None:
    assert held(databases, 21, 22) == {21, 22}
    databases.write("DELETE FROM payment WHERE payment_id = 21")
    shared("ingest", "--compare-keys", "--wait")
    assert held(databases, 21, 22) == {22}
    verdict = shared("verify", "--json").json
    assert (verdict["equal"], verdict["in_flight"]) == (True, 0)
    assert "1 found deleted" in shared.log("up")


def test_a_refused_row_is_shown_and_replayed_and_leaves_when_corrected(shared: Starlift, databases: Databases) -> None:
    databases.write("UPDATE payment SET payment_date = 'soon' WHERE payment_id = 23")
    shared("ingest", "--wait")
    (line,) = shared("quarantine", "list", "--json").out.splitlines()
    entry = json.loads(line)
    assert (entry["table"], entry["key"]) == ("fact_payment", [23])
    assert entry["problems"] == [{"column": "payment_date", "reason": "is not a date (YYYY-MM-DD)"}]
    assert "payment_date is not a date (YYYY-MM-DD)" in " ".join(shared("quarantine", "list", "fact_payment").out.split())
    assert shared("quarantine", "show", "fact_payment", "23").json["row"]["payment_date"] == "soon"
    complaint = shared("quarantine", "show", "fact_payment", "24", expected=4).complains(4)
    assert complaint == "no row (24) of 'fact_payment' is in quarantine; `starlift quarantine list` lists them"
    told = shared("quarantine", "replay", "--wait").out
    assert told == "sent again: 1 row in 1 batch; still in quarantine: 1 row\n"
    databases.write("UPDATE payment SET payment_date = '2027-01-01' WHERE payment_id = 23")
    shared("ingest", "--wait")
    assert shared("quarantine", "list").out == "nothing is in quarantine\n"


def test_dead_letters_are_replayed_after_the_source_is_repaired_and_nothing_is_missing(
    shared: Starlift, databases: Databases
) -> None:
    databases.write("ALTER TABLE staff RENAME first_name TO given_name")
    try:
        databases.write("UPDATE staff SET given_name = 'Augusta' WHERE staff_id = 1")
        shared("ingest", "--wait", expected=4)
    finally:
        databases.write("ALTER TABLE staff RENAME given_name TO first_name")
    shared("dlq", "replay", "ingestion", "--execute")
    wait_until(lambda: databases.read("SELECT first_name FROM dim_staff WHERE staff_id = 1")[0]["first_name"] == "Augusta")
    wait_until(lambda: shared("status", "--timeout", "600", "--json", expected=None).json["dead_letters"]["ingestion"] == 0)
    assert shared("verify", "--json").json["equal"]
