from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.messages import Message
from shared.consumer.attempt import (
    ATTEMPTS_ATTRIBUTE,
    DEFERRED_ATTRIBUTE,
    FAILING_ATTRIBUTE,
    Attempt,
    read_attempt,
    sender_attributes,
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


def attempt(receive_count: int = 1, attributes: dict[str, str] | None = None) -> Attempt:
    return read_attempt(delivery(receive_count, attributes), LATER)


@given(receive_counts=st.lists(st.integers(1, 9), min_size=1))
@settings(deadline=None)
def test_every_receipt_but_the_last_of_each_copy_counts_as_an_attempt(
    receive_counts: list[int],
) -> None:
    attributes: dict[str, str] = {}
    for count in receive_counts:
        attributes = attempt(count, attributes).copy_attributes()
    assert attempt(1, attributes).number == 1 + sum(count - 1 for count in receive_counts)


def test_a_copy_keeps_the_time_of_the_first_failure() -> None:
    assert FAILING_ATTRIBUTE not in attempt().copy_attributes()
    first = attempt(2).copy_attributes()
    assert attempt(1, first).failing_since == EPOCH + A_MINUTE
    assert attempt(1, read_attempt(delivery(2, first), LATER + A_MINUTE).copy_attributes()).failing_since == EPOCH + A_MINUTE
    assert attempt().failing_since is None


def test_a_deferral_keeps_the_time_of_the_first_one() -> None:
    first = attempt().deferral_attributes(EPOCH)
    assert attempt(1, attempt(1, first).deferral_attributes(LATER)).deferred_since == EPOCH


@pytest.mark.parametrize("text", ["", "-1", "two", "٣", "1e3", "9" * 5000])
def test_a_forged_attempt_count_is_ignored(text: str) -> None:
    assert attempt(3, {ATTEMPTS_ATTRIBUTE: text}).number == 3


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), ("yesterday", None), ("2999-01-01T00:00:00+00:00", LATER), ("2999-01-01", LATER)]
)
def test_a_forged_time_is_ignored_or_capped_at_now(text: str, expected: datetime | None) -> None:
    made = attempt(1, {DEFERRED_ATTRIBUTE: text, FAILING_ATTRIBUTE: text})
    assert (made.deferred_since, made.failing_since) == (expected, expected)


def test_our_own_attributes_are_not_counted_as_the_sender_s() -> None:
    copied = attempt(2, attempt(1, {"origin": "x"}).deferral_attributes(LATER)).copy_attributes()
    assert set(copied) == {"origin", ATTEMPTS_ATTRIBUTE, FAILING_ATTRIBUTE, DEFERRED_ATTRIBUTE}
    assert sender_attributes(delivery(1, copied)) == {"origin": "x"}


@pytest.mark.virtual_clock
async def test_an_outage_of_a_day_costs_no_attempt_despite_the_12_hour_limit_of_sqs() -> None:
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
async def test_a_process_paused_for_longer_than_a_lease_neither_deletes_nor_copies() -> None:
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
async def test_the_backoff_of_a_copy_counts_the_attempts_before_it() -> None:
    scene, handler = Scene(), Script([ValueError()])
    await scene.queue.send(body(), attributes={ATTEMPTS_ATTRIBUTE: "3"})
    await scene.consume_all(handler)
    assert 20 <= handler.calls[1] - handler.calls[0] <= 40.5
