"""The timeline: every fault and repair, with its second since the start, printed as it happens and kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened. `kind` groups it in the summary."""

    second: float
    kind: str
    text: str


@dataclass
class Timeline:
    """A record of moments; `tell` prints a line."""

    tell: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    moments: list[Moment] = field(default_factory=list)

    def note(self, kind: str, text: str) -> None:
        """Keep a moment and print it."""
        moment = Moment(time.monotonic() - self.began, kind, text)
        self.moments.append(moment)
        self.tell(f"{moment.second:7.1f} s  {kind:<18} {text}")

    def counts(self) -> dict[str, int]:
        """How often each kind of thing happened."""
        return dict(Counter(moment.kind for moment in self.moments).most_common())

    def has(self, kind: str) -> bool:
        """True if it ever happened."""
        return any(moment.kind == kind for moment in self.moments)
