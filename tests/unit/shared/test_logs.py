from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
import structlog

from shared.logs import configure_logs


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_event_is_one_line_that_begins_with_time_level_service_and_name(logged: Any) -> None:
    configure_logs("loading")
    structlog.get_logger().info("batch_loaded", rows=7, batch_id=UUID(int=5))
    (line,) = logged()
    assert list(line) == ["timestamp", "level", "service", "event", "rows", "batch_id"]
    assert datetime.fromisoformat(line.pop("timestamp")).tzname() == "UTC"
    assert line == {"level": "info", "service": "loading", "event": "batch_loaded", "rows": 7, "batch_id": str(UUID(int=5))}


def test_bound_log_context_stays_within_its_task(logged: Any) -> None:
    configure_logs("loading")

    async def work(run: int) -> None:
        structlog.contextvars.bind_contextvars(run=run)
        await asyncio.sleep(0)
        structlog.get_logger().info("done", expected=run)

    async def both() -> None:
        await asyncio.gather(work(1), work(2))

    asyncio.run(both())
    assert [line["run"] for line in logged()] == [1, 2]


def test_debug_events_are_logged_only_when_enabled(logged: Any) -> None:
    configure_logs("loading")
    structlog.get_logger().debug("message_received")
    configure_logs("loading", level="debug")
    structlog.get_logger().debug("message_received")
    assert len(logged()) == 1


def test_an_error_is_logged_as_its_type_and_place_without_its_text(logged: Any) -> None:
    configure_logs("loading")
    try:
        int("alice@example.com")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("library failed")
    ours, theirs = logged()
    assert ours["error_type"] == theirs["error_type"] == "ValueError"
    assert "alice" not in json.dumps([ours, theirs])


def test_a_library_s_warnings_are_logged_in_the_same_form(logged: Any) -> None:
    configure_logs("loading")
    logging.getLogger("aiobotocore").info("nothing")
    logging.getLogger("aiobotocore").warning("slow %s", "pool")
    (line,) = logged()
    assert list(line)[:4] == ["timestamp", "level", "service", "event"]
    assert (line["level"], line["event"]) == ("warning", "slow pool")
