from __future__ import annotations

from datetime import timedelta

from infra.local.ticker import Ticker


def test_a_late_tick_does_not_delay_those_after_it() -> None:
    now, sent = 0.0, list[float]()
    ticker = Ticker(lambda: sent.append(now), timedelta(seconds=1), lambda: now)
    for now in (0.0, 0.9, 1.2, 1.9, 2.1, 4.7, 4.9, 5.0, 5.1):  # noqa: B007 - the clock reads it
        ticker.tick()
    assert sent == [0.0, 1.2, 2.1, 4.7, 5.0], "the ticks of 3 and 4 seconds are made once"
