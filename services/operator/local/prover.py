"""`starlift up` proves the warehouse again and again, in a process of its own, as a scheduled task does on AWS."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.local import processes
from infra.local.processes import Child
from services.operator.exit_codes import ExitCode

COMMAND = ("verify", "--record", "--settle", "10")
PENDING = "PENDING "  # how such a verdict begins


@dataclass
class Prover:
    """Starts a proof every `interval` in the `environment` of that moment, never two at once; `adopt` gets each process."""

    interval: timedelta
    log: Path
    environment: Callable[[], Mapping[str, str]]
    adopt: Callable[[Child], None]
    clock: Callable[[], float] = time.monotonic
    _child: Child | None = None
    _due: float = field(init=False)
    _failure: str = ""

    def __post_init__(self) -> None:
        self._due = self.clock() + self.interval.total_seconds()

    def look(self) -> str | None:
        """What a proof that has ended says, for a person who watches; starts one when it is time."""
        if self._child is not None and (code := self._child.exit_code()) is not None:
            self._child = None
            return self._told(code)
        if self._child is None and self.clock() >= self._due:
            self._due = self.clock() + self.interval.total_seconds()
            self.log.unlink(missing_ok=True)
            command = processes.python("services.operator", *COMMAND)
            self._child = processes.start(command, log=self.log, environment=self.environment())
            self.adopt(self._child)
        return None

    def _told(self, code: int) -> str | None:
        """Report nothing before the first load, when there is no warehouse to prove, and a lasting failure only once."""
        last = (self.log.read_text(errors="replace").strip().splitlines() or ["it ended without a word"])[-1]
        is_proof = code in {ExitCode.DONE, ExitCode.DIFFERENT} or (code == ExitCode.NOT_LOADED and last.startswith(PENDING))
        if not is_proof and (code == ExitCode.NOT_LOADED or last == self._failure):
            return None
        self._failure = "" if is_proof else last
        return f"{datetime.now(UTC):%H:%M:%S}  {'proof':<12} {last if is_proof else f'failed: {last}'}"
