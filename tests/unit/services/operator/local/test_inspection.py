from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.local.bootstrap import Resources
from infra.local.processes import own_id
from infra.local.state import Home, StackState
from services.operator.local.events import waits_in
from services.operator.local.inspection import LocalStack, psql_command, without_secrets
from tests.fixtures.delivered_contract import DELIVERED
from tests.fixtures.totesys import CONTRACT

NOW = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)


def line(event: str, seconds_ago: float = 0, **fields: str) -> str:
    moment = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    return json.dumps({"timestamp": moment, "service": "loading", "event": event, **fields})


DOWN = line("dependency_down", dependency="warehouse", reason="the warehouse database refuses the user or the password")
UP = line("dependency_up", dependency="warehouse")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["no JSON", "[]", "{}", DOWN[:-9]], None),
        ([DOWN], "the warehouse database refuses the user or the password"),
        ([DOWN, line("batch_loaded")], "the warehouse database refuses the user or the password"),
        ([DOWN, UP], None),
        ([DOWN, line("started")], None),
        ([line("receive_failed", 20, reason="sqs fails")], "sqs fails"),
        ([line("receive_failed", 200, reason="sqs fails")], None),
        ([line("receive_failed", reason="sqs fails"), DOWN, UP], "sqs fails"),
        ([line("receive_failed", reason="sqs fails"), line("message_done")], None),
    ],
)
def test_the_last_logged_wait_of_a_service_is_shown(lines: list[str], expected: str | None) -> None:
    assert waits_in(iter(lines), NOW) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:s3%40cret@db.example.com:5433/star", "postgresql://me@db.example.com:5433/star"),
        ("postgres://me@db/star?sslmode=require&password=hunter2", "postgres://me@db/star?sslmode=require"),
        ("postgresql://me:x@one:1,two:2/star?sslpassword=a&PASSWORD=b", "postgresql://me@one:1,two:2/star"),
        ("postgresql://db/star", "postgresql://db/star"),
    ],
)
def test_a_url_on_a_command_line_has_no_password(url: str, expected: str) -> None:
    assert without_secrets(url) == expected


def test_the_command_can_be_pasted_into_a_shell() -> None:
    program, url = psql_command("postgresql://me@127.0.0.1/star?passfile=/tmp/it's here").split(" ", 1)
    assert program.endswith("psql")
    assert url.startswith("'postgresql")


def test_the_drop_zone_is_shown_where_a_data_set_has_files(tmp_path: Path) -> None:
    resources = Resources(
        stack="s",
        region="eu-west-2",
        endpoint_url="http://127.0.0.1:4566",
        queue_urls={},
        dead_letter_urls={},
        buckets={"landing": "starlift-landing-s"},
        secrets={},
    )
    Home(tmp_path).write(StackState(stack="s", owner=own_id(), ports={"warehouse": 5432}, resources=resources))
    stack = LocalStack(tmp_path)
    assert [line.partition(":")[0] for line in stack.addresses(CONTRACT)] == ["The star"]
    *_, line = stack.addresses(DELIVERED)
    assert line == "The drop zone: curl -T FILE http://127.0.0.1:4566/starlift-landing-s/dropzone/DATASET/"
