"""The proofs of `starlift up`: a process of its own every so often, as a scheduled task does on AWS."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.local import processes
from infra.local.processes import Child
from services.operator.wording import COMPLAINT, HEADING

COMMAND = ("verify", "--record", "--settle", "10")
VERDICTS = ("EQUAL ", "DIFFERENT ", "PENDING ")  # how the last line of a proof begins
LINES = 1_000  # of the output that are looked through
NOT_LOADED = 4  # the exit code of `starlift verify` before the first load


@dataclass
class Prover:
    """Starts a proof every `interval` in the `environment` of that moment, never two at once; `adopt` gets each process.

    `log` takes the output of the last one.
    """

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
        """Start a proof when it is time; return the result of one that has ended, as a line for a person who watches."""
        if self._child is not None and (code := self._child.exit_code()) is not None:
            self._child = None
            return self._reported(code)
        if self._child is None and self.clock() >= self._due:
            self._due = self.clock() + self.interval.total_seconds()
            self.log.unlink(missing_ok=True)
            command = processes.python("services.operator", *COMMAND)
            self._child = processes.start(command, log=self.log, environment=self.environment())
            self.adopt(self._child)
        return None

    def _reported(self, code: int) -> str | None:
        """Report nothing before the first load, when there is no warehouse to prove, and a lasting failure only once."""
        last = processes.tail(self.log, 1) or "it ended without a message"
        proofs = self._proofs()
        if not proofs and (code == NOT_LOADED or last == self._failure):
            return None
        self._failure = "" if proofs else last
        return "\n".join(f"{datetime.now(UTC):%H:%M:%S}  {'proof':<12} {line}" for line in proofs or [f"failed: {last}"])

    def _proofs(self) -> list[str]:
        """The verdict of each source, with its name if there are several, and why others of these have none."""
        source, found = "", []
        for line in processes.tail(self.log, LINES).splitlines():
            if line.startswith(HEADING):
                source = f"{line.removeprefix(HEADING)}: "
            elif line.startswith(VERDICTS):
                found.append(f"{source}{line}")
            elif source and line.startswith(COMPLAINT):
                found.append(f"{source}failed: {line.removeprefix(COMPLAINT)}")
        return found
