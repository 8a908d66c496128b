from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from services.operator.local.events import waits_in
from services.operator.local.inspection import psql_command, without_secrets

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
