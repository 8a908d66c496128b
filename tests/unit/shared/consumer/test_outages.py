from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from contracts.failure import FailureReason
from contracts.messages import Message
from shared.consumer import Handler
from shared.consumer.executor import OUTAGES_MAXIMUM
from shared.errors import DependencyDownError, PermanentError, ServerBusyError, TransientError
from shared.outcome import Done, Outcome
from shared.testing import connection_reset
from tests.unit.shared.consumer.scene import Scene, Script, body, now, until
from tests.unit.shared.consumer.scene import message as a_message

pytestmark = pytest.mark.virtual_clock


class Warehouse:
    """A database that is down from `down_at` to `up_at`, in the loop's seconds."""

    def __init__(self, *, up_at: float, down_at: float = 0) -> None:
        self.down_at = down_at
        self.up_at = up_at
        self.probes: list[float] = []
        self.calls: list[float] = []

    async def probe(self) -> None:
        self.probes.append(now())
        self.ask()

    async def handle(self, _message: Message) -> Outcome:
        self.calls.append(now())
        self.ask()
        return Done()

    def ask(self) -> None:
        if self.down_at <= now() < self.up_at:
            raise DependencyDownError("warehouse", "no answer")


async def test_while_a_dependency_is_down_messages_are_kept_at_no_cost_of_attempts() -> None:
    warehouse = Warehouse(up_at=3600)
    scene = Scene(probes={"warehouse": warehouse.probe})
    for number in range(5):
        await scene.queue.send(body(number))
    with capture_logs() as logs:
        await scene.consume_all(warehouse.handle)
    events = [entry["event"] for entry in logs]
    assert [message.receive_count for message in scene.queue.sent] == [1] * 5
    assert scene.dead_letters.messages == []
    assert 3600 <= now() < 3660
    assert (events.count("dependency_down"), events.count("dependency_up")) == (1, 1)


async def test_while_a_dependency_is_down_no_messages_are_received() -> None:
    warehouse = Warehouse(up_at=3600)
    scene = Scene(probes={"warehouse": warehouse.probe})
    await scene.queue.send(body(1))
    async with scene.consuming(warehouse.handle, slots=5):
        await until(lambda: now() > 60)  # the poll in flight has ended
        for number in range(2, 9):
            await scene.queue.send(body(number))
        await until(lambda: now() > 3500)
        assert (await scene.queue.depth()).in_flight == 1
        await until(lambda: not scene.queue.messages)


async def test_one_of_two_deliveries_is_done_while_the_other_waits_for_a_dependency() -> None:
    warehouse = Warehouse(up_at=0.4)
    scene, handler = Scene(probes={"warehouse": warehouse.probe}), Script([DependencyDownError("warehouse", "no answer")])
    scene.queue.duplicate(scene.queue.put(body()))
    await scene.consume_all(handler)
    assert len(handler.calls) == 2  # the one that met the outage, and the other


async def test_a_dependency_is_probed_at_random_intervals_of_at_most_thirty_seconds() -> None:
    warehouse = Warehouse(up_at=3600)
    scene = Scene(probes={"warehouse": warehouse.probe})
    await scene.queue.send(body())
    await scene.consume_all(warehouse.handle)
    pauses = [later - earlier for earlier, later in zip(warehouse.probes, warehouse.probes[1:], strict=False)]
    assert max(pauses) <= 30
    assert 10 < sum(pauses[10:]) / len(pauses[10:]) < 20


async def test_a_message_that_fails_on_a_healthy_dependency_is_dead_lettered() -> None:
    async def answers() -> None:
        return

    async def handle(message: Message) -> Outcome:
        if message.id == poison.id:
            failures.append(now())
            raise DependencyDownError("s3", "bucket 'of-yesterday' does not exist")
        flowed.append(now())
        return Done()

    poison, failures, flowed = a_message(0), list[float](), list[float]()
    scene = Scene(probes={"s3": answers})
    await scene.queue.send(body(0))
    for number in range(1, 9):
        await scene.queue.send(body(number), delay=timedelta(seconds=100 * number))
    await scene.consume_all(handle)
    assert [letter.body for letter in scene.dead_letters.messages] == [body(0)]
    assert (scene.failure().reason, scene.failure().attempts) == (FailureReason.EXHAUSTED, 5)
    assert "of-yesterday" in scene.failure().message
    assert len(failures) == 5 * (1 + OUTAGES_MAXIMUM)
    assert 300 < failures[-1] < 3600, "never in a hot loop, and over within the hour"
    waits = [at - 100 * number for number, at in enumerate(flowed, start=1)]
    assert max(waits) < 10, "what answers its probe is up: nobody else waits while the message is tried ever more slowly"


async def test_an_outage_that_comes_and_goes_costs_no_attempt() -> None:
    async def answers() -> None:
        return

    steps: list[Outcome | Exception] = [DependencyDownError("warehouse", "no")] * OUTAGES_MAXIMUM
    scene = Scene(probes={"warehouse": answers})
    await scene.queue.send(body())
    await scene.consume_all(Script(steps))
    assert [sent.receive_count for sent in scene.queue.sent] == [1]
    assert scene.dead_letters.messages == []


async def test_a_busy_server_costs_no_attempt_for_hours_but_not_forever() -> None:
    async def answers() -> None:
        return

    def full_until(end: float) -> Handler:
        async def handle(_message: Message) -> Outcome:
            if now() < end:
                raise ServerBusyError("warehouse", "the warehouse database's disk is full")
            return Done()

        return handle

    scene = Scene(probes={"warehouse": answers})
    await scene.queue.send(body())
    with capture_logs() as logs:
        await scene.consume_all(full_until(now() + 3 * 3600))
    assert scene.dead_letters.messages == []
    explained = [entry for entry in logs if entry["event"] == "dependency_down" and entry["log_level"] == "warning"]
    deferrals = [entry for entry in logs if entry["event"] == "message_deferred"]
    assert len(explained) == len(deferrals) + 1, "once in each try, not at each of its outages"
    await scene.queue.send(body())
    await scene.consume_all(full_until(now() + 3 * 3600), defer_limit=timedelta(hours=1))
    assert (scene.failure().reason, scene.failure().error_type) == (FailureReason.EXHAUSTED, "DeferredTooLongError")


async def test_a_probe_that_is_refused_lets_the_message_try_again() -> None:
    async def refuses() -> None:
        raise PermanentError("wrong password")

    scene = Scene(probes={"warehouse": refuses})
    handler = Script([DependencyDownError("warehouse", "no"), PermanentError("wrong password")])
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert scene.failure().message == "wrong password"


async def test_a_bug_in_a_probe_costs_attempts_but_does_not_end_the_service() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    scene, handler = Scene(probes={"warehouse": fails}), Script([DependencyDownError("warehouse", "no")] * 5)
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert scene.failure().error_type == "ZeroDivisionError"


async def test_an_outage_of_a_dependency_without_a_probe_counts_as_an_attempt() -> None:
    scene, handler = Scene(), Script([DependencyDownError("fax", "no answer")])
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert scene.queue.sent[0].receive_count == 2


async def test_another_message_probes_when_the_probing_one_is_lost() -> None:
    warehouse = Warehouse(up_at=3600)
    scene = Scene(probes={"warehouse": warehouse.probe})
    await scene.queue.send(body(1))
    await scene.queue.send(body(2))
    async with scene.consuming(warehouse.handle):
        await until(lambda: now() > 100)
        await scene.show_again()
        await until(lambda: not scene.queue.messages)
    assert 3600 <= now() < 3700


async def test_a_failing_queue_is_polled_again_until_it_answers() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("receive", *[DependencyDownError("sqs", "away"), TransientError("throttled")] * 10)
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert 60 < now() < 20 * 30


async def test_an_answer_of_the_queue_resets_the_backoff_of_polls() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("receive", *[connection_reset()] * 20)
    await scene.queue.send(body())
    waits: list[float] = []
    async with scene.consuming(handler):
        await until(lambda: not scene.queue.messages)
        for number in range(10):
            scene.queue.faults.add("receive", connection_reset())
            await until(lambda: not scene.queue.faults.is_coming("receive"))
            struck_at = now()
            await scene.queue.send(body(number))
            await until(lambda: not scene.queue.messages)
            waits.append(now() - struck_at)
    assert max(waits) < 2


async def test_only_a_refusal_of_the_first_request_to_the_queue_ends_the_service() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("receive", PermanentError("access denied"))
    with pytest.raises(ExceptionGroup) as caught:
        await scene.consumer(handler).run()
    assert isinstance(caught.value.exceptions[0], PermanentError)
    async with scene.consuming(handler):
        await scene.queue.send(body(1))
        await until(lambda: not scene.queue.messages)
        for method in ("receive", "delete", "set_visibility"):
            scene.queue.faults.add(method, PermanentError("access denied"))
        scene.queue.faults.add("receive", ZeroDivisionError())
        await until(lambda: not scene.queue.faults.is_coming("receive"))
        await scene.queue.send(body(2))
        await until(lambda: not scene.queue.messages)
    assert len(handler.calls) == 2


async def test_the_health_file_is_fresh_and_names_the_dependency_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("health") / "beat"
    warehouse = Warehouse(up_at=300)
    scene = Scene(probes={"warehouse": warehouse.probe})
    await scene.queue.send(body())
    async with scene.consuming(warehouse.handle, health_file=file):
        await until(lambda: now() > 60)
        assert file.read_text() == "waiting for warehouse\n"
        for _ in range(10):
            file.unlink()
            await until(file.exists, within=timedelta(seconds=6))
        await until(lambda: not scene.queue.messages)
        await until(lambda: file.read_text() == "ready\n")
