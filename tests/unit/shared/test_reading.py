from __future__ import annotations

import asyncio

from shared.reading import AT_ONCE, all_of, in_order


class Counter:
    """Answers with twice the number, the greater the sooner, and counts how many are asked at once."""

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


async def test_some_are_asked_at_once_and_the_answers_come_in_order() -> None:
    counter = Counter()
    assert await all_of(range(100), counter) == [2 * number for number in range(100)]
    assert (counter.asked, counter.most) == (100, AT_ONCE)


async def test_what_is_not_needed_is_not_asked_for() -> None:
    counter = Counter()
    async for number, _ in in_order(range(100), counter):
        if number == 20:
            break
    assert counter.asked == 2 * AT_ONCE
