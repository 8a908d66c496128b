"""`starlift dlq …` on a system of fakes: what it prints where, and its exit codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from rich.console import Console

from services.operator.dlq import terminal
from services.operator.system import System
from services.operator.terminal.app import starlift
from services.operator.terminal.harness import run_command
from tests.fixtures.virtual_clock import VirtualClockLoop
from tests.unit.services.operator.dlq.scene import SERVICE, Graves, bury, on_loop_clock


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Of `--json`."""
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """Commands on one system of fakes, whose clock goes on from one to the next."""

    def __init__(self, loop: VirtualClockLoop, capture: pytest.CaptureFixture[str]) -> None:
        self.graves = Graves()
        self.loop = loop
        self._capture = capture

    def __call__(self, *words: str) -> Answer:
        code = run_command(starlift(), ["dlq", *words])
        captured = self._capture.readouterr()
        return Answer(code, captured.out, captured.err)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def bury(self, count: int = 1, **changed: Any) -> list[str]:
        async def doing() -> list[str]:
            return self.graves.bury(count, **changed)

        return list(self.run(doing()))

    def lay(self, *bodies: str, service: str = SERVICE) -> list[str]:
        async def doing() -> list[str]:
            return bury(self.graves.dead_letters[service], *bodies)

        return list(self.run(doing()))


@contextmanager
def terminal_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    """Eighty columns wide."""
    on_loop_clock(monkeypatch)
    loop = VirtualClockLoop()
    found = Terminal(loop, capsys)

    @asynccontextmanager
    async def opened(_settings: object) -> AsyncIterator[System]:
        yield found.graves.system

    monkeypatch.setattr(terminal, "open_system", opened)
    monkeypatch.setattr(terminal, "operator_settings", lambda: None)
    monkeypatch.setattr(terminal, "people", Console(width=80))
    monkeypatch.setattr(asyncio, "run", loop.run_until_complete)
    yield found
    loop.close()
