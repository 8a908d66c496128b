"""How long a test waits before it calls something hung. Never a speed: a passing test ends long before, on any machine."""

from __future__ import annotations

from datetime import timedelta

HANG = timedelta(minutes=10)
HANG_S = HANG.total_seconds()
