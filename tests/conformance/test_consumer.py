"""The consumer on each implementation, on the real clock; its rules one by one are unit tests."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from random import Random

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord
from contracts.messages import Message
from shared.consumer import Consumer
from shared.errors import PermanentError
from shared.outcome import Done, Outcome
from tests.conformance.conftest import Queues
from tests.unit.consumer_scene import RULES, body, message

RULES_ON_A_LAPTOP = replace(RULES, slots=10, poll_wait=timedelta(seconds=1))
COUNT = 50


async def test_every_message_is_worked_on_once_and_the_bad_one_becomes_a_dead_letter(queues: Queues) -> None:
    worked_on: Counter[str] = Counter()

    async def handle(received: Message) -> Outcome:
        worked_on[str(received.id)] += 1
        if sum(worked_on.values()) == COUNT:
            consumer.stop()
        if received == message(7):
            raise PermanentError("seven is bad")
        return Done()

    consumer = Consumer(
        handle,
        RULES_ON_A_LAPTOP,
        queue=queues.queue,
        dead_letters=queues.dead_letters,
        probes={},
        rng=Random(1),  # noqa: S311 - the same delays each time
    )
    for number in range(COUNT):
        await queues.queue.send(body(number))
    async with asyncio.timeout(30):
        await consumer.run()

    assert worked_on == Counter({str(message(number).id): 1 for number in range(COUNT)})
    depth = await queues.queue.depth()
    assert (depth.visible, depth.in_flight) == (0, 0)
    (letter,) = await queues.dead_letters.receive(10, wait=timedelta(seconds=5), visibility=timedelta(seconds=60))
    assert letter.body == body(7)
    failure = FailureRecord.model_validate_json(letter.attributes[FAILURE_ATTRIBUTE])
    assert (failure.reason, failure.message) == (FailureReason.PERMANENT, "seven is bad")
