from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.messages import Message
from shared.consumer.attempts import (
    ATTEMPTS_ATTRIBUTE,
    DEFERRED_ATTRIBUTE,
    FAILING_ATTRIBUTE,
    attempt_number,
    deferred,
    deferred_since,
    failing_since,
    handed_over,
)
from shared.consumer.attempts import (
    given as given_attributes,
)
from shared.errors import DependencyDownError
from shared.outcome import Done, Outcome
from shared.queue import Delivery
from shared.testing import EPOCH
from tests.fixtures.virtual_clock import VirtualClockLoop
from tests.unit.shared.consumer.scene import Scene, Script, body, now

A_MINUTE = timedelta(minutes=1)
LATER = EPOCH + timedelta(hours=1)


def delivery(receive_count: int = 1, attributes: dict[str, str] | None = None) -> Delivery:
    return Delivery("id", "body", "receipt", receive_count, EPOCH, EPOCH + A_MINUTE, attributes or {})


@given(receive_counts=st.lists(st.integers(1, 9), min_size=1))
def test_however_often_a_message_is_handed_over_every_receipt_but_the_last_of_each_copy_is_an_attempt(
    receive_counts: list[int],
) -> None:
    attributes: dict[str, str] = {}
    for count in receive_counts:
        attributes = handed_over(delivery(count, attributes), LATER)
    assert attempt_number(delivery(1, attributes)) == 1 + sum(count - 1 for count in receive_counts)


def test_a_copy_remembers_since_when_its_message_fails() -> None:
    assert FAILING_ATTRIBUTE not in handed_over(delivery(), LATER)
    first = handed_over(delivery(2), LATER)
    assert failing_since(delivery(1, first), LATER) == EPOCH + A_MINUTE
    assert failing_since(delivery(1, handed_over(delivery(2, first), LATER + A_MINUTE)), LATER) == EPOCH + A_MINUTE
    assert failing_since(delivery(), LATER) == LATER


def test_a_deferral_remembers_when_the_first_one_was() -> None:
    first = deferred(delivery(), EPOCH)
    assert deferred_since(delivery(1, deferred(delivery(1, first), LATER)), LATER) == EPOCH


@pytest.mark.parametrize("text", ["", "-1", "two", "٣", "1e3", "9" * 5000])
def test_a_hand_made_count_counts_nothing(text: str) -> None:
    assert attempt_number(delivery(3, {ATTEMPTS_ATTRIBUTE: text})) == 3


@pytest.mark.parametrize("text", ["", "yesterday", "2999-01-01T00:00:00+00:00", "2999-01-01"])
def test_a_hand_made_time_is_now_at_the_latest(text: str) -> None:
    made = delivery(1, {DEFERRED_ATTRIBUTE: text, FAILING_ATTRIBUTE: text})
    assert (deferred_since(made, LATER), failing_since(made, LATER)) == (LATER, LATER)


def test_what_is_ours_is_not_among_what_the_message_was_given() -> None:
    copied = handed_over(delivery(2, deferred(delivery(1, {"origin": "x"}), LATER)), LATER)
    assert set(copied) == {"origin", ATTEMPTS_ATTRIBUTE, FAILING_ATTRIBUTE, DEFERRED_ATTRIBUTE}
    assert given_attributes(delivery(1, copied)) == {"origin": "x"}


@pytest.mark.virtual_clock
async def test_an_outage_of_a_day_burns_no_attempt_though_sqs_hides_a_message_for_twelve_hours_only() -> None:
    up_at = timedelta(days=1).total_seconds()

    async def ask() -> None:
        if now() < up_at:
            raise DependencyDownError("warehouse", "no answer")

    async def handle(_message: Message) -> Outcome:
        await ask()
        return Done()

    scene = Scene(probes={"warehouse": ask})
    await scene.queue.send(body())
    await scene.consume_all(handle)
    assert now() < up_at + 200
    assert {message.receive_count for message in scene.queue.sent} == {1}
    assert scene.queue.sent[-1].attributes == {ATTEMPTS_ATTRIBUTE: "0"}


@pytest.mark.virtual_clock
async def test_a_process_that_was_paused_for_longer_than_a_lease_neither_deletes_nor_copies() -> None:
    scene = Scene()
    answers = [Done(), Done()]

    async def paused_behind_its_effect(_message: Message) -> Outcome:
        if len(answers) == 2:
            cast("VirtualClockLoop", asyncio.get_running_loop()).skip(70)
        return answers.pop()

    await scene.queue.send(body())
    await scene.consume_all(paused_behind_its_effect)
    assert (scene.queue.sent[0].receive_count, answers) == (2, [])


@pytest.mark.virtual_clock
async def test_the_delay_before_the_next_attempt_counts_what_failed_before_the_copy() -> None:
    scene, handler = Scene(), Script([ValueError()])
    await scene.queue.send(body(), attributes={ATTEMPTS_ATTRIBUTE: "3"})
    await scene.consume_all(handler)
    assert 20 <= handler.calls[1] - handler.calls[0] <= 40.5
