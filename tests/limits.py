"""How long a test waits before it reports a hang. It is not a speed limit: a passing test ends long before, on any machine."""

from __future__ import annotations

from datetime import timedelta

HANG = timedelta(minutes=10)
HANG_S = HANG.total_seconds()
