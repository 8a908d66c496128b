from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.virtual_clock import VirtualClockLoop

pytest_plugins = ["tests.localstack", "tests.postgres_cluster"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_clock: runs on an event loop whose clock jumps to the next timer")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_clock"):
        return {"virtual clock": VirtualClockLoop}
    return {"real clock": asyncio.new_event_loop}
