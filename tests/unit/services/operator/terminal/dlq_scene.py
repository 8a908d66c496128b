"""Run Run `starlift dlq …` on a system of fakes."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from services.operator.terminal.app import starlift
from services.operator.terminal.harness import run_command
from tests.fixtures.virtual_clock import VirtualClockLoop
from tests.unit.services.operator.dlq.scene import SERVICE, DeadScene, put_dead


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """The documents that `--json` printed."""
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """Commands on one system of fakes, whose clock continues from one to the next."""

    def __init__(self, loop: VirtualClockLoop, capture: pytest.CaptureFixture[str]) -> None:
        self.scene = DeadScene()
        self.loop = loop
        self._capture = capture

    def __call__(self, *words: str) -> Answer:
        code = run_command(starlift(), ["dlq", *words])
        captured = self._capture.readouterr()
        return Answer(code, captured.out, captured.err)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def add(self, count: int = 1, **changed: Any) -> list[str]:
        async def adding() -> list[str]:
            return self.scene.add(count, **changed)

        return list(self.run(adding()))

    def put(self, *bodies: str, service: str = SERVICE) -> list[str]:
        async def putting() -> list[str]:
            return put_dead(self.scene.dead_letters[service], *bodies)

        return list(self.run(putting()))

    def hold_two(self) -> None:
        """Hold two letters, as another command does."""
        self.run(self.scene.dead.receive(2, wait=timedelta(0), visibility=timedelta(hours=1)))
