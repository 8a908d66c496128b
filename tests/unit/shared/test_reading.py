from __future__ import annotations

import asyncio

from shared.reading import AT_ONCE, all_of, in_order


class Counter:
    """Answers with twice the number, larger ones sooner, and counts concurrent requests."""

    def __init__(self) -> None:
        self.now = self.most = self.asked = 0

    async def __call__(self, number: int) -> int:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(100 - number):
            await asyncio.sleep(0)
        self.now -= 1
        return 2 * number


async def test_requests_run_concurrently_and_answers_come_in_order() -> None:
    counter = Counter()
    assert await all_of(range(100), counter) == [2 * number for number in range(100)]
    assert (counter.asked, counter.most) == (100, AT_ONCE)


async def test_requests_that_are_not_needed_are_not_made() -> None:
    counter = Counter()
    async for number, _ in in_order(range(100), counter):
        if number == 20:
            break
    assert counter.asked == 2 * AT_ONCE
