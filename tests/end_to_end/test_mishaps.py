"""A running stack continues after each mishap."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import closing
from typing import Any

from contracts.failure import FAILURE_ATTRIBUTE
from infra.local.bootstrap import client
from infra.local.processes import find
from tests.end_to_end.conftest import RUN_EVERY, Databases, Starlift, wait_until


def sell(databases: Databases) -> None:
    """Insert one more sales order."""
    databases.write(
        "INSERT INTO sales_order (design_id, staff_id, counterparty_id, units_sold, unit_price, currency_id, "
        "agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id, last_updated) "
        "SELECT design_id, staff_id, counterparty_id, units_sold, unit_price, currency_id, agreed_delivery_date, "
        "agreed_payment_date, agreed_delivery_location_id, now() FROM sales_order LIMIT 1"
    )


def sold(databases: Databases) -> int:
    """The number of sales orders in the warehouse."""
    (row,) = databases.read("SELECT count(*) FROM fact_sales_order_current")
    return int(row["count"])


def assert_equal(shared: Starlift) -> None:
    verdict = shared("verify", "--json").json
    assert verdict["equal"], verdict
    assert verdict["in_flight"] == 0


def kill(shared: Starlift, name: str) -> None:
    """Send SIGKILL, and wait until the successor runs."""
    killed = shared.state.processes[name]
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: find(killed) is None)
    wait_until(lambda: shared.state.processes.get(name, killed) != killed)


def test_a_killed_service_is_restarted_and_the_pipeline_continues(shared: Starlift, databases: Databases) -> None:
    before = sold(databases)
    sell(databases)
    kill(shared, "loading")
    wait_until(lambda: sold(databases) == before + 1)
    assert "loading ended with -9 and starts again in 1 s" in shared.log("up")
    assert_equal(shared)


def test_a_killed_localstack_comes_back_empty_and_the_next_run_reads_everything(shared: Starlift, databases: Databases) -> None:
    before = sold(databases)
    sell(databases)
    kill(shared, "localstack")
    wait_until(lambda: sold(databases) == before + 1)
    shared("ingest", "--wait")
    assert "LocalStack had ended and was started again" in shared.log("up")
    assert shared.log("up").count("reads in full") >= 2
    assert_equal(shared)


def test_a_wait_lasts_until_every_run_before_its_own_is_loaded(shared: Starlift, databases: Databases) -> None:
    """With the loader stopped, a run that finds nothing new must not be called loaded: the run before it is on its way."""
    before = sold(databases)
    loader = shared.state.processes["loading"].pid
    os.kill(loader, signal.SIGSTOP)
    try:
        sell(databases)
        missing = len(shared("status", "--timeout", "600", "--json", expected=None).json["missing_batches"])
        shared("ingest")
        wait_until(lambda: len(shared("status", "--timeout", "600", "--json", expected=None).json["missing_batches"]) > missing)
        answer = shared("ingest", "--wait", "--timeout", "8", expected=4)
        assert re.search(r"waiting: run \d+: 0 of 0 batches loaded; before it \d+ missing, of run \d+", answer.err), answer.err
        assert "not loaded after 8 s: run" in answer.complains(4)
        assert sold(databases) == before
    finally:
        os.kill(loader, signal.SIGCONT)
    shared("ingest", "--wait")
    assert sold(databases) == before + 1


def dead_letters(shared: Starlift) -> list[Any]:
    """The failure records of ingestion's dead letters, which stay in the queue."""
    resources = shared.state.resources
    assert resources is not None
    with closing(client("sqs", resources.endpoint_url, resources.region)) as sqs:
        answer = sqs.receive_message(
            QueueUrl=resources.dead_letter_urls["ingestion"],
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            MessageAttributeNames=["All"],
        )
    return [json.loads(message["MessageAttributes"][FAILURE_ATTRIBUTE]["StringValue"]) for message in answer["Messages"]]


def test_a_dropped_column_causes_dead_letters_until_it_is_restored(shared: Starlift, databases: Databases) -> None:
    before = sold(databases)
    databases.write("ALTER TABLE department DROP COLUMN location")
    try:
        sell(databases)
        sentence = shared("ingest", "--wait", expected=4).complains(4)
        assert re.match(r"the request for this run is dead letter \S+ of ingestion: `starlift dlq show", sentence)
        failure = dead_letters(shared)[0]
        assert failure["message"] == (
            "table 'department' lacks column 'location' required by contract 'totesys'; restore it or change the contract"
        )
        assert failure["service"] == "ingestion"
        status = shared("status", "--timeout", "600", "--json", expected=5).json
        assert status["healthy"] is False
        assert status["dead_letters"]["ingestion"] > 0
        assert sold(databases) == before
        assert "dead letter: table 'department' lacks column 'location'" in shared.log("up")
    finally:
        databases.write("ALTER TABLE department ADD COLUMN location text")
    shared("ingest", "--wait")
    assert sold(databases) == before + 1
    assert_equal(shared)


def test_a_second_up_in_one_home_is_refused(shared: Starlift) -> None:
    sentence = shared("up", expected=1).complains(1)
    assert sentence.startswith(
        f"a stack is already running in {shared.home}; stop it with `starlift down`, or set STARLIFT_HOME"
    )


def test_down_leaves_no_process_and_the_next_up_continues_from_the_warehouse(shared: Starlift, databases: Databases) -> None:
    before, running = sold(databases), shared.alive
    assert len(running) == 5  # the owner, LocalStack, three services
    assert shared("down").out == "stopped\n"
    wait_until(lambda: shared.alive == set())  # the owner gives up its place, and then ends
    assert shared("down").out == f"nothing is running in {shared.home}\n"
    assert shared("status", expected=2).complains(2).startswith(f"no Starlift is running in {shared.home}; ")
    sell(databases)
    of_up = {name.replace("STARLIFT_", "STARLIFT_UP_"): url for name, url in databases.urls.items()}
    shared("up", "--detach", "--every", RUN_EVERY, expected=0, **of_up)
    shared("ingest", "--wait")
    assert sold(databases) == before + 1
    assert_equal(shared)
    assert shared("status", "--timeout", "600", "--json").json["healthy"] is True
