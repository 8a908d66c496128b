"""The main use: a user's own databases, loaded continuously and proved equal."""

from __future__ import annotations

import datetime as dt
import stat
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local.databases import execute, fetch_value
from tests.end_to_end.conftest import Databases, Starlift, wait_until
from tests.fixtures.limits import HANG_S

ORDER, DEPARTMENT, ADDRESS = 1, 1, 1
CHANGES = f"""
UPDATE department SET department_name = 'Zoology', location = NULL, last_updated = now() WHERE department_id = {DEPARTMENT};
UPDATE staff SET department_id = {DEPARTMENT}, last_updated = now() WHERE staff_id <= 3;
UPDATE address SET address_line_2 = '', district = NULL, city = 'Ölmühle \\N', last_updated = now()
WHERE address_id = {ADDRESS};
UPDATE counterparty SET legal_address_id = {ADDRESS}, last_updated = now() WHERE counterparty_id <= 2;
INSERT INTO sales_order (design_id, staff_id, counterparty_id, units_sold, unit_price, currency_id, agreed_delivery_date,
                         agreed_payment_date, agreed_delivery_location_id, created_at, last_updated)
VALUES (1, 1, 1, 1, 99999999.99, 1, '9999-12-31', '0001-01-01', 1, '2026-11-22 23:59:59.999', '2026-11-23 00:00:00.001')
"""


@pytest.fixture(scope="module")
def verdict(shared: Starlift, databases: Databases) -> Any:
    """The verdict after a day's work at the source, with a run after each version of an order."""
    databases.write(CHANGES)
    for hour in (10, 11, 12):
        databases.write(
            f"UPDATE sales_order SET units_sold = {hour}, last_updated = '2026-12-01 {hour}:00' WHERE sales_order_id = {ORDER}"
        )
        shared("ingest", "--wait")
    return shared("verify", "--json").json


def test_after_the_day_s_work_the_warehouse_is_equal(verdict: Any, databases: Databases) -> None:
    assert verdict["equal"]
    assert (verdict["in_flight"], verdict["quarantined"]) == (0, 0)
    orders = fetch_value(databases.owner, "SELECT count(*) FROM sales_order")
    found = verdict["tables"]["fact_sales_order"]
    assert (found["expected"], found["actual"], found["in_flight"], found["quarantined"]) == (orders, orders, 0, 0)
    assert (found["different"], found["differences"]) == (0, [])


def test_a_renamed_department_is_renamed_for_all_its_staff(verdict: Any, databases: Databases) -> None:
    members = fetch_value(databases.owner, "SELECT count(*) FROM staff WHERE department_id = $1", DEPARTMENT)
    assert members >= 3
    renamed = databases.read("SELECT location FROM dim_staff WHERE department_name = 'Zoology'")
    assert renamed == [{"location": "(unknown)"}] * members


def test_a_corrected_address_is_corrected_everywhere(verdict: Any, databases: Databases) -> None:
    (place,) = databases.read("SELECT address_line_2, district, city FROM dim_location WHERE location_id = $1", ADDRESS)
    assert place == {"address_line_2": "", "district": None, "city": "Ölmühle \\N"}
    parties = fetch_value(databases.owner, "SELECT count(*) FROM counterparty WHERE legal_address_id = $1", ADDRESS)
    assert parties >= 2
    moved = databases.read(
        "SELECT counterparty_legal_address_line_2 AS line_2, counterparty_legal_district AS district FROM dim_counterparty "
        "WHERE counterparty_legal_city = 'Ölmühle \\N'"
    )
    assert moved == [{"line_2": "", "district": None}] * parties


def test_every_version_that_a_run_saw_is_kept(verdict: Any, databases: Databases) -> None:
    history = databases.read("SELECT * FROM fact_sales_order WHERE sales_order_id = $1 ORDER BY _run", ORDER)
    assert len(history) == 4
    assert [row["units_sold"] for row in history[1:]] == [10, 11, 12]
    assert (history[3]["last_updated_date"], history[3]["last_updated_time"]) == (dt.date(2026, 12, 1), dt.time(12))
    current = databases.read("SELECT units_sold FROM fact_sales_order_current WHERE sales_order_id = $1", ORDER)
    assert current == [{"units_sold": 12}]


def test_the_history_is_complete_until_a_version_is_lost(verdict: Any, shared: Starlift, databases: Databases) -> None:
    history = shared("verify", "fact_sales_order", "--settle", "0", "--history", "--json").json["history"]
    assert (history["complete"], list(history["facts"])) == (True, ["fact_sales_order"])
    assert history["facts"]["fact_sales_order"]["versions"] >= history["facts"]["fact_sales_order"]["rows"]
    (version,) = databases.read("SELECT * FROM fact_sales_order WHERE sales_order_id = $1 AND units_sold = 11", ORDER)
    databases.read(
        "UPDATE fact_sales_order SET last_updated_time = '11:01' WHERE sales_record_id = $1", version["sales_record_id"]
    )
    answer = shared("verify", "fact_sales_order", "--settle", "0", "--history", expected=3)
    assert "fact_sales_order 1 of 2026-12-01 11:00:00 is lost (batch " in answer.out
    assert "fact_sales_order 1 of 2026-12-01 11:01:00 is unknown (batch " in answer.out
    databases.read(
        "UPDATE fact_sales_order SET last_updated_time = '11:00' WHERE sales_record_id = $1", version["sales_record_id"]
    )


def test_the_life_of_an_order_is_traced(verdict: Any, shared: Starlift) -> None:
    life = shared("trace", "fact_sales_order", str(ORDER), "--json").json
    assert [row["values"]["units_sold"] for row in life["rows"]][:3] == ["12", "11", "10"]
    assert [row["current"] for row in life["rows"]] == [True, False, False, False]
    for row in life["rows"]:
        times = [dt.datetime.fromisoformat(hop["at"]) for hop in row["batch"]["hops"] if not hop["to_the_second"]]
        assert times == sorted(times)
        pieces = [*row["batch"]["landing"], *row["batch"]["processed"]]
        assert [piece["expired"] for piece in pieces] == [False, False]
    assert "fact_sales_order 1: 4 rows in the warehouse" in shared("trace", "fact_sales_order", str(ORDER)).out
    assert "dim_staff -7 is not in the warehouse." in shared("trace", "dim_staff", "-7", expected=4).out
    assert shared("trace", "dim_staff", "x", expected=2).complains(2).startswith("'staff_id' is a whole number")


def test_values_arrive_unchanged(verdict: Any, databases: Databases) -> None:
    (row,) = databases.read(
        "SELECT *, agreed_payment_date::text AS paid, agreed_delivery_date::text AS delivered "
        "FROM fact_sales_order WHERE unit_price > 99999999"
    )
    assert row["unit_price"] == Decimal("99999999.99")
    assert (row["created_date"], row["created_time"]) == (dt.date(2026, 11, 22), dt.time(23, 59, 59, 999_000))
    assert (row["last_updated_date"], row["last_updated_time"]) == (dt.date(2026, 11, 23), dt.time(0, 0, 0, 1_000))
    assert (row["paid"], row["delivered"]) == ("0001-01-01", "9999-12-31")
    (last,) = databases.read("SELECT day_name, quarter FROM dim_date WHERE date_id::text = '9999-12-31'")
    assert last == {"day_name": "Friday", "quarter": 4}


def test_the_json_of_a_status_shows_a_healthy_stack(shared: Starlift) -> None:
    shown: list[Any] = []

    def no_run_is_under_way() -> bool:
        """A run's batches may be loaded before its checkpoint is stored."""
        shown.append(shared("status", "--timeout", "600", "--json").json)
        return bool(shown[-1]["last_run"] >= shown[-1]["consistent_through"] > 0)

    wait_until(no_run_is_under_way)
    status = shown[-1]
    assert status["healthy"] is True
    assert set(status["queues"]) == set(status["dead_letters"]) == {"ingestion", "chunks", "remodelling", "loading"}
    assert (status["missing_batches"], status["quarantined"]) == ([], 0)
    assert dt.datetime.fromisoformat(status["fresh_as_of"]).tzinfo is not None
    assert status["behind_seconds"] < HANG_S
    assert status["rows"]["dim_design"] == 473
    alive = {name for name, service in status["services"].items() if service["alive_since"]}
    assert alive == {"ingestion", "remodelling", "loading"}
    assert "psql " in status["psql"]


def test_a_status_shows_how_fresh_the_warehouse_is(shared: Starlift) -> None:
    assert "the warehouse shows the source as of" in shared("status", "--timeout", "600").out


def test_the_runs_are_listed_with_their_outcomes(shared: Starlift) -> None:
    asked = shared("ingest", "--wait").out.split()[1]
    runs = shared("runs", "--limit", "1000", "--json").json["runs"]
    assert runs == sorted(runs, key=lambda run: -run["run"])
    (own,) = [run for run in runs if str(run["run"]) == asked]
    assert (own["outcome"], own["trigger"]) == ("loaded", "operator")
    first = runs[-1]
    assert (first["outcome"], first["full"]) == ("loaded", True)
    assert first["rows_read"] > 1000
    assert f"│ {first['run']} │" in shared("runs", "--limit", "1000").out


def test_a_modified_warehouse_differs_until_a_full_read(shared: Starlift, databases: Databases) -> None:
    (before,) = databases.read("SELECT design_name FROM dim_design WHERE design_id = 7")
    databases.read("UPDATE dim_design SET design_name = '[/x]' WHERE design_id = 7")
    answer = shared("verify", expected=3)
    assert f"dim_design 7 is different (design_name: expected {before['design_name']!r}, found '[/x]')" in answer.out
    assert "DIFFERENT as of run" in answer.out
    assert "is loaded: 1 batch" in shared("ingest", "--full", "--wait").out
    assert "EQUAL as of run" in shared("verify").out
    assert databases.read("SELECT count(*) FROM fact_sales_order WHERE sales_order_id = $1", ORDER) == [{"count": 4}]


@pytest.mark.parametrize("name", ["stack.json", "up.log", "ingestion.log"])
def test_files_of_the_stack_are_readable_only_by_its_owner(name: str, shared: Starlift) -> None:
    assert stat.S_IMODE((shared.home / name).stat().st_mode) == 0o600


def test_no_password_appears_on_a_command_line_or_in_a_log(shared: Starlift, databases: Databases) -> None:
    passwords = {url.split(":")[2].partition("@")[0] for url in (databases.reader, databases.warehouse)}
    shown = [" ".join(psutil.Process(process.pid).cmdline()) for process in shared.alive]
    shown += [path.read_text() for path in shared.home.glob("*.log")]
    assert not [text for text in shown for password in passwords if password in text]


def test_a_row_modified_in_the_warehouse_is_named_and_repaired(shared: Starlift, databases: Databases, tmp_path: Path) -> None:
    shared("ingest", "--wait", "--compare-keys")
    execute(databases.warehouse, "UPDATE fact_sales_order SET units_sold = -1 WHERE sales_order_id = 3")
    page = tmp_path / "proof.html"
    different = shared("verify", "--record", "--settle", "0", "--report", str(page), "fact_sales_order", expected=2)
    assert "--record needs a proof of the whole star" in different.err
    different = shared("verify", "--record", "--settle", "0", "--report", str(page), expected=3)
    assert "fact_sales_order: 1, named in s3://" in different.out
    assert "expected" not in different.out.partition("fact_sales_order: 1")[2]  # what a schedule prints stays in a log
    assert "found &#x27;-1&#x27;" in page.read_text()
    assert "fact_sales_order 3 is different (units_sold: expected" in shared("verify", "--settle", "0", expected=3).out
    assert not shared("status", "--timeout", "600", "--json", expected=5).json["proved"]["is_equal"]
    assert shared("verify", "--repair", "--record", "--json").json["equal"]
    proved = shared("status", "--timeout", "600", "--json").json["proved"]
    assert (proved["is_equal"], proved["different"]) == (True, 0)
