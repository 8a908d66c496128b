from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason
from contracts.messages import Message
from shared.consumer.attempt import ATTEMPTS_ATTRIBUTE, DEFERRED_ATTRIBUTE
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.outcome import DeadLetter, Defer, Done, Outcome, Retry
from shared.testing import EPOCH, loop_now, throttled
from tests.unit.shared.consumer.scene import Scene, Script, body, message, now, until

pytestmark = pytest.mark.virtual_clock


async def test_a_finished_message_is_deleted() -> None:
    scene, handler = Scene(), Script()
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert len(handler.calls) == 1
    assert scene.dead_letters.messages == []


async def test_the_handler_gets_the_message_that_was_sent() -> None:
    scene = Scene()
    received: list[Message] = []

    async def handle(message: Message) -> Outcome:
        received.append(message)
        return Done()

    await scene.queue.send(body(7))
    await scene.consume_all(handle)
    assert received == [message(7)]


@pytest.mark.parametrize("error", [TransientError("no luck"), ValueError("row 17"), ExceptionGroup("group", [OSError()])])
async def test_a_transient_error_is_retried_with_backoff_and_dead_lettered_after_five_attempts(error: Exception) -> None:
    scene, handler = Scene(), Script([error] * 9)
    await scene.queue.send(body())
    await scene.consume_all(handler)
    pauses = [later - earlier for earlier, later in zip(handler.calls, handler.calls[1:], strict=False)]
    assert len(handler.calls) == 5
    assert all(5 * 2**n / 2 <= pause <= 5 * 2**n for n, pause in enumerate(pauses)), pauses
    failure = scene.failure()
    assert failure.reason is FailureReason.EXHAUSTED
    assert failure.attempts == 5
    assert (failure.last_failed_at - failure.first_failed_at).total_seconds() == pytest.approx(sum(pauses))


async def test_a_permanent_error_is_dead_lettered_at_once_with_body_attributes_and_reason() -> None:
    scene, handler = Scene(), Script([PermanentError("the table 'x' is gone; restore it")])
    await scene.queue.send(body(), attributes={"origin": "drop zone"})
    await scene.consume_all(handler)
    (letter,) = scene.dead_letters.messages
    failure = scene.failure()
    assert letter.body == body()
    assert letter.attributes["origin"] == "drop zone"
    assert failure.reason is FailureReason.PERMANENT
    assert failure.message == "the table 'x' is gone; restore it"
    assert (failure.source_queue, failure.service, failure.version) == ("remodelling", "remodelling", "1.2.3")
    assert (failure.error_type, failure.attempts, failure.replays) == ("PermanentError", 1, 0)


async def test_a_body_that_is_not_a_message_is_dead_lettered_before_the_handler() -> None:
    scene, handler = Scene(), Script()
    await scene.queue.send("hello")
    await scene.consume_all(handler)
    assert handler.calls == []
    assert scene.failure().reason is FailureReason.UNDECODABLE


async def test_a_newer_message_is_deferred_as_a_copy_at_no_cost_of_attempts() -> None:
    scene, handler = Scene(), Script()
    newer = json.dumps({**json.loads(body()), "type": "starlift.ingest_source.v99"})
    await scene.queue.send(newer, attributes={"origin": "x"})
    async with scene.consuming(handler):
        await until(lambda: len(scene.queue.sent) == 12)
    waits = [later.sent_at - earlier.sent_at for earlier, later in zip(scene.queue.sent, scene.queue.sent[1:], strict=False)]
    assert all(timedelta(seconds=60) <= wait < timedelta(seconds=61) for wait in waits[1:])
    assert len(scene.queue.messages) == 1
    assert all(copy.attributes["origin"] == "x" and copy.body == newer for copy in scene.queue.sent)
    assert (handler.calls, scene.dead_letters.messages) == ([], [])


async def test_a_newer_message_is_dead_lettered_after_a_day_without_its_deployment() -> None:
    scene, handler = Scene(), Script()
    await scene.queue.send(json.dumps({**json.loads(body()), "type": "starlift.ingest_source.v99"}), attributes={"origin": "x"})
    await scene.consume_all(handler)
    failure = scene.failure()
    assert timedelta(days=1) <= loop_now() - EPOCH < timedelta(days=1, minutes=2)
    assert (failure.reason, failure.error_type, failure.attempts) == (FailureReason.EXHAUSTED, "DeferredTooLongError", 1)
    assert "is newer than version 2, which this build knows; deferred for longer than 1 day" in failure.message
    assert set(scene.dead_letters.messages[0].attributes) == {"origin", FAILURE_ATTRIBUTE}


async def test_a_handler_cannot_defer_forever() -> None:
    scene, handler = Scene(), Script([Defer(timedelta(minutes=5), "another run holds the lease")] * 99)
    await scene.queue.send(body())
    await scene.consume_all(handler, defer_limit=timedelta(hours=1))
    assert len(handler.calls) == 13
    assert scene.failure().message.startswith("another run holds the lease; deferred for longer than 1:00:00; remove the cause")


async def test_a_deferred_message_counts_its_attempts_from_one() -> None:
    scene = Scene()
    four = [TransientError("no luck")] * 4
    handler = Script([*four, Defer(timedelta(minutes=1), "later"), *four])
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert len(handler.calls) == 10
    assert scene.dead_letters.messages == []


async def test_a_deferral_that_cannot_be_sent_leaves_its_message() -> None:
    scene, handler = Scene(), Script([Defer(timedelta(minutes=1), "later")])
    await scene.queue.send(body())
    scene.queue.faults.add("send", throttled())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        await until(lambda: len(handler.calls) == 2)
    assert scene.queue.sent[0].receive_count == 2


async def test_a_deferral_forgets_the_failed_attempts_before_it() -> None:
    scene, handler = Scene(), Script([Defer(timedelta(minutes=1), "later")])
    await scene.queue.send(body(), attributes={ATTEMPTS_ATTRIBUTE: "4", "origin": "x"})
    await scene.consume_all(handler)
    assert set(scene.queue.sent[1].attributes) == {"origin", DEFERRED_ATTRIBUTE}


async def test_a_deferral_is_cut_to_the_longest_delay_of_sqs() -> None:
    scene, handler = Scene(), Script([Defer(timedelta(hours=3), "another run holds the lease")])
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert handler.calls[1] - handler.calls[0] == pytest.approx(900, abs=1)


async def test_a_handler_may_ask_for_another_attempt_but_not_for_a_sixth() -> None:
    scene, handler = Scene(), Script([Retry(timedelta(seconds=3), "locked")] * 9)
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert [round(call) for call in handler.calls] == [0, 3, 6, 9, 12]
    assert (scene.failure().reason, scene.failure().message) == (FailureReason.EXHAUSTED, "locked")


async def test_a_handler_may_give_up_on_a_message() -> None:
    scene = Scene()
    handler = Script([DeadLetter(FailureReason.PERMANENT, PermanentError("never"))])
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert scene.failure().message == "never"


async def test_a_handler_beyond_its_time_limit_is_cancelled_and_retried() -> None:
    scene, handler = Scene(), Script(takes=timedelta(hours=2))
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert handler.cancelled == 5
    assert "longer than its limit of 1:00:00" in scene.failure().message


async def test_the_text_of_an_unknown_error_is_neither_sent_nor_logged() -> None:
    scene, handler = Scene(), Script([ValueError("alice@example.com")] * 5)
    await scene.queue.send(body())
    with capture_logs() as logs:
        await scene.consume_all(handler)
    assert "alice" not in scene.dead_letters.messages[0].attributes[FAILURE_ATTRIBUTE]
    assert "alice" not in json.dumps(logs, default=str)
    assert "unexpected ValueError" in scene.failure().message


async def test_a_permanent_error_decides_for_a_group_of_errors() -> None:
    scene = Scene()
    handler = Script([ExceptionGroup("", [ValueError(), ExceptionGroup("", [PermanentError("broken")])])])
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert scene.failure().message == "broken"


async def test_an_outage_decides_for_a_group_of_errors_since_it_may_cause_the_others() -> None:
    async def answers() -> None:
        return

    scene = Scene(probes={"warehouse": answers})
    handler = Script([ExceptionGroup("", [PermanentError("no rows"), DependencyDownError("warehouse", "no answer")])])
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert (len(handler.calls), scene.dead_letters.messages) == (2, [])


async def test_a_message_whose_dead_letter_cannot_be_sent_stays_and_is_retried() -> None:
    scene, handler = Scene(), Script([PermanentError("first"), PermanentError("second")])
    scene.dead_letters.faults.add("send", DependencyDownError("sqs", "away"))
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert scene.failure().message == "second"


@pytest.mark.parametrize(
    ("step", "copies", "letters"),
    [(PermanentError("x"), 0, 2), (Defer(timedelta(minutes=1), "x"), 1, 0), (Done(), 0, 0)],
)
async def test_a_consumer_killed_between_send_and_delete_leaves_both_messages(
    step: Outcome | Exception, copies: int, letters: int
) -> None:
    scene, handler = Scene(), Script([step, step])
    await scene.queue.send(body())
    dying = asyncio.create_task(scene.consumer(handler).run())
    await until(lambda: len(handler.calls) == 1, turn_s=0.001)
    await asyncio.sleep(0.02)  # it lingers for 0.05 s before it deletes
    dying.cancel()
    await asyncio.wait([dying])
    assert len(scene.queue.messages) == 1 + copies
    await scene.consume_all(handler)
    assert scene.dead_letters.bodies == [body()] * letters
    assert scene.queue.sent[0].receive_count == 2
    assert now() < 150  # the visibility timeout, the deferral, the last poll


async def test_messages_that_fill_a_request_are_deleted_without_a_pause() -> None:
    scene = Scene()
    for number in range(40):
        await scene.queue.send(body(number))
    running = asyncio.create_task(scene.consumer(Script(), slots=10).run())
    await until(lambda: not scene.queue.messages, turn_s=0.001)
    assert now() < 0.05
    running.cancel()
    await asyncio.wait([running])


async def test_a_replayed_dead_letter_keeps_when_it_failed_first_and_how_often_it_was_replayed() -> None:
    scene = Scene()
    await scene.queue.send(body())
    await scene.consume_all(Script([PermanentError("x")]))
    replayed = scene.failure().model_copy(update={"replays": 3})
    scene.dead_letters.messages.clear()
    await asyncio.sleep(3600)
    await scene.queue.send(body(), attributes={FAILURE_ATTRIBUTE: replayed.model_dump_json()})
    await scene.consume_all(Script([PermanentError("x")]))
    assert (scene.failure().replays, scene.failure().first_failed_at) == (3, replayed.first_failed_at)
    assert scene.failure().last_failed_at > replayed.last_failed_at


async def test_a_forged_failure_attribute_does_not_prevent_dead_lettering() -> None:
    scene = Scene()
    await scene.queue.send(body(), attributes={FAILURE_ATTRIBUTE: "{}"})
    await scene.consume_all(Script([PermanentError("x")]))
    assert scene.failure().first_failed_at - EPOCH < timedelta(seconds=1)


async def test_every_log_event_of_a_message_has_its_id() -> None:
    scene, handler = Scene(), Script([TransientError("later")])
    await scene.queue.send(body())
    with capture_logs(processors=[merge_contextvars]) as logs:
        await scene.consume_all(handler)
    events = {entry["event"]: entry["message_id"] for entry in logs if "message_id" in entry}
    assert events == dict.fromkeys(("message_received", "message_retried", "message_done"), "remodelling-1")


async def test_every_slot_works_at_the_same_time_and_no_more_than_that() -> None:
    scene, handler = Scene(), Script(takes=timedelta(seconds=10))
    for number in range(5):
        await scene.queue.send(body(number))
    await scene.consume_all(handler, slots=2)
    assert [round(call) for call in handler.calls] == [0, 0, 10, 10, 20]
