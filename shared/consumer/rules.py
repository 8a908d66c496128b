"""What a service decides about its consumer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from contracts.messages import Message
from shared.outcome import Outcome

Handler = Callable[[Message], Awaitable[Outcome]]
# Returns when the dependency answers; raises DependencyDownError or TransientError while it does not.
Probe = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that a consumer needs. ServiceSettings explains each and checks them against each other."""

    service: str
    version: str
    slots: int
    attempts: int
    handler_limit: timedelta
    visibility_timeout: timedelta
    poll_wait: timedelta
    drain_budget: timedelta
    defer_limit: timedelta
    health_file: Path | None = None
