"""The event loop's clock as a wall clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # the wall clock's time when the loop's clock says 0


def loop_now() -> datetime:
    """The loop's clock as a wall clock."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())
