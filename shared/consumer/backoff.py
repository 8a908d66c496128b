"""How long to wait before trying again. Random, so that those that failed together do not come back together."""

from __future__ import annotations

from datetime import timedelta
from random import Random

_RETRY_FIRST = timedelta(seconds=5)
_RETRY_MAXIMUM = timedelta(minutes=15)
_PROBE_FIRST = timedelta(seconds=1)
_PROBE_MAXIMUM = timedelta(seconds=30)
_DOUBLINGS_MAXIMUM = 20  # far beyond both maxima, far below what a timedelta holds


def retry_delay(attempt: int, rng: Random) -> timedelta:
    """Before the next attempt, after attempt n (from 1) has failed: uniform in [d/2, d], d = min(15 min, 5 s · 2^(n-1))."""
    longest = min(_RETRY_MAXIMUM, _doubled(_RETRY_FIRST, attempt))
    return longest * rng.uniform(0.5, 1)


def probe_delay(failures: int, rng: Random) -> timedelta:
    """Before a dependency is asked again, after n `failures` in a row: uniform in [0, d], d = min(30 s, 1 s · 2^(n-1))."""
    return min(_PROBE_MAXIMUM, _doubled(_PROBE_FIRST, failures)) * rng.random()


def _doubled(first: timedelta, count: int) -> timedelta:
    return first * (1 << min(count - 1, _DOUBLINGS_MAXIMUM))
