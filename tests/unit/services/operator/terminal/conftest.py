from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from services.operator.system import System
from services.operator.terminal.session import opened_by
from tests.fixtures.virtual_clock import VirtualClockLoop
from tests.unit.services.operator.terminal.dlq_scene import Terminal


@pytest.fixture
def dlq(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    loop = VirtualClockLoop()
    found = Terminal(loop, capsys)

    @asynccontextmanager
    async def opened() -> AsyncIterator[System]:
        yield found.scene.system

    monkeypatch.setattr(asyncio, "run", loop.run_until_complete)
    with opened_by(opened):
        yield found
    loop.close()
