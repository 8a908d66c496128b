"""The consumer on each implementation with the real clock; unit tests cover its single rules."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord
from contracts.messages import Message
from shared.consumer import Consumer, Handler, Rules
from shared.consumer.attempt import ATTEMPTS_ATTRIBUTE, FAILING_ATTRIBUTE
from shared.errors import PermanentError, TransientError
from shared.outcome import Done, Outcome, Retry
from shared.queue import Delivery, Queue
from tests.conformance.conftest import Queues
from tests.fixtures.limits import HANG_S
from tests.unit.shared.consumer.scene import RULES, body, message

RULES_ON_A_LAPTOP = replace(RULES, slots=10, poll_wait=timedelta(seconds=1))
COUNT = 50


def consumer_of(queues: Queues, handler: Handler, rules: Rules) -> Consumer:
    return Consumer(
        handler,
        rules,
        queue=queues.queue,
        dead_letters=queues.dead_letters,
        probes={},
        rng=Random(1),  # noqa: S311 - the same delays each time
    )


async def received(queue: Queue, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(HANG_S):
        while len(found) < count:
            found += await queue.receive(10, wait=timedelta(seconds=1), visibility=timedelta(seconds=60))
    return found


async def test_every_message_is_handled_once_and_the_bad_one_is_dead_lettered(queues: Queues) -> None:
    worked_on: Counter[str] = Counter()

    async def handle(received: Message) -> Outcome:
        worked_on[str(received.id)] += 1
        if sum(worked_on.values()) == COUNT:
            consumer.stop()
        if received == message(7):
            raise PermanentError("seven is bad")
        return Done()

    consumer = consumer_of(queues, handle, RULES_ON_A_LAPTOP)
    for number in range(COUNT):
        await queues.queue.send(body(number))
    async with asyncio.timeout(HANG_S):
        await consumer.run()

    assert worked_on == Counter({str(message(number).id): 1 for number in range(COUNT)})
    depth = await queues.queue.depth()
    assert (depth.visible, depth.in_flight) == (0, 0)
    (letter,) = await queues.dead_letters.receive(10, wait=timedelta(seconds=5), visibility=timedelta(seconds=60))
    assert letter.body == body(7)
    failure = FailureRecord.model_validate_json(letter.attributes[FAILURE_ATTRIBUTE])
    assert (failure.reason, failure.message) == (FailureReason.PERMANENT, "seven is bad")


async def test_poison_is_dead_lettered_with_a_reason_while_good_messages_flow(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.consumer.executor.NEWER_MESSAGE_DELAY", timedelta(seconds=1))
    newer = json.dumps({**json.loads(body(1)), "type": "starlift.ingest_source.v99"})
    unknown = json.dumps({**json.loads(body(1)), "type": "starlift.brew_coffee.v1"})
    done: list[Message] = []

    async def handle(received: Message) -> Outcome:
        if received == message(0):
            raise TransientError("no luck")
        done.append(received)
        return Done()

    rules = replace(RULES_ON_A_LAPTOP, attempts=2, defer_limit=timedelta(seconds=3), drain_budget=timedelta(seconds=2))
    consumer = consumer_of(queues, handle, rules)
    running = asyncio.create_task(consumer.run())
    for poison, number in zip(["hello", unknown, newer, body(0)], range(1, 5), strict=True):
        await queues.queue.send(poison)
        await queues.queue.send(body(number))
    letters = {letter.body: letter for letter in await received(queues.dead_letters, 4)}
    consumer.stop()
    await running

    records = {
        text: FailureRecord.model_validate_json(letter.attributes[FAILURE_ATTRIBUTE]) for text, letter in letters.items()
    }
    assert sorted(str(one.id) for one in done) == sorted(str(message(number).id) for number in range(1, 5))
    assert "the body is not JSON" in records["hello"].message
    assert "the type 'starlift.brew_coffee.v1' is not one of" in records[unknown].message
    assert "is newer than version 2, which this build knows; deferred for longer than" in records[newer].message
    assert (records[body(0)].message, records[body(0)].attempts) == ("no luck", 2)
    assert (await queues.queue.depth()).in_flight == 0


async def test_a_stop_leaves_a_copy_that_counts_only_failed_attempts(queues: Queues) -> None:
    started: list[Message] = []

    async def handle(received: Message) -> Outcome:
        started.append(received)
        if len(started) == 1:
            return Retry(timedelta(0), "no luck")
        await asyncio.sleep(60)
        raise AssertionError

    await queues.queue.send(body(), attributes={"origin": "x"})
    consumer = consumer_of(queues, handle, replace(RULES_ON_A_LAPTOP, drain_budget=timedelta(seconds=1)))
    running = asyncio.create_task(consumer.run())
    async with asyncio.timeout(HANG_S):
        while len(started) < 2:  # noqa: ASYNC110 - the handler has no event to wait for
            await asyncio.sleep(0.05)
        consumer.stop()
        await running

    (copy,) = await received(queues.queue, 1)
    assert (copy.body, copy.receive_count) == (body(), 1)
    assert (copy.attributes[ATTEMPTS_ATTRIBUTE], copy.attributes["origin"]) == ("1", "x")
    assert set(copy.attributes) == {ATTEMPTS_ATTRIBUTE, FAILING_ATTRIBUTE, "origin"}
    assert (await queues.queue.depth()).visible == 0
