"""Any order of messages, faults, stops and kills: no message is lost, and each ends where it must.

The same examples each time, a few hundred steps; `make properties` tries new ones. A failure prints the steps that lead to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
import structlog
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord
from shared.consumer.attempt import ATTEMPTS_ATTRIBUTE, Attempt
from shared.consumer.consumer import CLEAN_UP, FLUSH
from shared.consumer.executor import Executor
from shared.consumer.lease import Lease
from shared.testing import AnswerLost, FakeQueue, Fault, Hangs, Partial, connection_reset, throttled
from tests.fixtures.properties import examples
from tests.fixtures.virtual_clock import VirtualClockLoop
from tests.unit.shared.consumer.processes import LEASE_S, Kind, Process, World
from tests.unit.shared.consumer.scene import RULES, now, until

MACHINE_RULES = replace(RULES, drain_budget=timedelta(seconds=20), defer_limit=timedelta(minutes=4))
DRAIN = MACHINE_RULES.drain_budget + CLEAN_UP + FLUSH + timedelta(seconds=2)  # the wait may check only once a second
ENOUGH = timedelta(hours=3)  # for the longest backoff and the longest deferral
STEPS = 40  # of an example
COPY = "attempt.Attempt.copy_attributes"
A_MOMENT_S = 0.01  # until a sent message is received and handled
METHODS = ("receive", "delete", "set_visibility", "send")
ENDS = {  # why a message that can't be done is a dead letter, and after how many attempts
    Kind.HOPELESS: (FailureReason.EXHAUSTED, "no luck", 5),
    Kind.PERMANENT: (FailureReason.PERMANENT, "the table is gone", 1),
    Kind.UNDECODABLE: (FailureReason.UNDECODABLE, "the body is not JSON", 1),
    Kind.NEWER: (FailureReason.EXHAUSTED, "deferred for longer than 0:04:00", 1),
}

any_fault = st.sampled_from([throttled(), connection_reset(), AnswerLost(), AnswerLost(is_slow=True), Hangs(), Partial()])
any_kind = st.sampled_from([*Kind, Kind.SLOW, Kind.SLOW, Kind.UNLUCKY, Kind.HOPELESS])  # the longest handlers meet most faults
any_index = st.integers(0, 20)


class Consumers(RuleBasedStateMachine):
    """Two consumers of one queue, stopped and started, and a warehouse that goes down and up, all on one virtual clock."""

    def __init__(self) -> None:
        super().__init__()
        self.logging = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.runner = asyncio.Runner(loop_factory=VirtualClockLoop)
        self.world = World(FakeQueue("work", order=Random(1)), FakeQueue("dead"))  # noqa: S311 - the same order each time
        self.processes: list[Process] = []

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.is_gone]

    def run(self, work: Coroutine[None, None, None]) -> None:
        self.runner.run(work)

    @initialize()
    def start_two(self) -> None:
        self.start()
        self.start()

    @precondition(lambda self: len(self.alive) < 2)
    @rule()
    def start(self) -> None:
        async def start() -> None:
            self.processes.append(Process(self.world, MACHINE_RULES, len(self.processes), self.processes))
            await asyncio.sleep(A_MOMENT_S)

        self.run(start())

    @rule(kinds=st.lists(any_kind, min_size=1, max_size=3))
    def send(self, kinds: list[Kind]) -> None:
        async def send() -> None:
            for kind in kinds:
                self.world.send(kind)
            await asyncio.sleep(A_MOMENT_S)

        self.run(send())

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.06, 1]))
    def wait_a_moment(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(seconds=st.sampled_from([7, 20, 31, 61, 90, 200, 700]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: self.alive)
    @rule(index=any_index)
    def stop(self, index: int) -> None:
        process = self.alive[index % len(self.alive)]

        async def stop() -> None:
            process.consumer.stop()

        self.run(stop())

    @precondition(lambda self: self.alive)
    @rule(seconds=st.floats(15, 120))
    def deploy(self, seconds: float) -> None:
        """Let time pass, then replace each consumer by a successor."""
        self.run(asyncio.sleep(seconds))
        for process in self.alive:
            self.run(self.replace(process))

    async def replace(self, process: Process) -> None:
        process.consumer.stop()
        await until(lambda: process.is_gone, within=DRAIN, turn_s=1)
        self.processes.append(Process(self.world, MACHINE_RULES, len(self.processes), self.processes))

    @rule(is_up=st.booleans())
    def warehouse(self, *, is_up: bool) -> None:
        self.world.is_warehouse_up = is_up

    @invariant()
    def no_rule_is_broken(self) -> None:
        assert not self.world.violations, self.world.violations

    @invariant()
    def no_message_stays_hidden_by_a_dead_process(self) -> None:
        for process in self.processes:
            for message in process.left_hidden(self.runner.get_loop().time()) if process.gone_at is not None else ():
                assert message.visible_at <= (process.gone_at or 0) + LEASE_S
                assert process.is_killed or message.body in self.world.excused, "a stop left a message hidden"

    @invariant()
    def every_message_is_somewhere(self) -> None:
        for text in self.world.kinds:
            assert text in self.world.done or self.world.is_somewhere(text)

    def teardown(self) -> None:
        try:
            if not self.world.violations:
                self.run(self.recover())
                self.no_rule_is_broken()
                for text, kind in self.world.kinds.items():
                    self.require_end(text, kind)
        finally:
            self.runner.close()
            structlog.configure(**self.logging)

    async def recover(self) -> None:
        """End the faults, let two consumers work for a while, then stop them."""
        self.world.is_warehouse_up = True
        self.world.queue.faults.clear()
        self.world.dead_letters.faults.clear()
        for _ in range(2):
            self.processes.append(Process(self.world, MACHINE_RULES, len(self.processes), self.processes))
        await until(lambda: not self.world.queue.messages, within=ENOUGH, turn_s=5)
        for process in self.alive:
            process.consumer.stop()
        await until(lambda: not self.alive, within=DRAIN, turn_s=1)

    def require_end(self, text: str, kind: Kind) -> None:
        """Require each message to be done or a dead letter with its reason. A fault may cost attempts or double an end."""
        letters = [letter for letter in self.world.dead_letters.messages if letter.body == text]
        records = [FailureRecord.model_validate_json(letter.attributes[FAILURE_ATTRIBUTE]) for letter in letters]
        is_excused = text in self.world.excused
        if kind.is_to_be_done:
            assert (text in self.world.done and not letters) or (kind is Kind.UNLUCKY and is_excused and letters)
            return
        reason, start, attempts = ENDS[kind]
        assert text not in self.world.done
        assert len(records) == 1 or (records and is_excused)
        for record in records:
            assert (record.reason, start in record.message) == (reason, True)
            assert record.attempts is not None
            assert record.attempts == attempts or (record.attempts >= attempts and is_excused)
        assert self.world.failed[text] == (5 if kind is Kind.HOPELESS else 0) or is_excused


class ConsumersUnderFaults(Consumers):
    """The same with kills, and with SQS on its worst day."""

    @precondition(lambda self: self.alive)
    @rule(index=any_index)
    def kill(self, index: int) -> None:
        self.run(self.alive[index % len(self.alive)].kill())

    @rule(method=st.sampled_from(METHODS), fault=any_fault, is_of_dead_letters=st.booleans())
    def fault(self, method: str, fault: Fault, *, is_of_dead_letters: bool) -> None:
        (self.world.dead_letters if is_of_dead_letters else self.world.queue).faults.add(method, fault)

    @rule(fault=any_fault, kind=any_kind)
    def copy_fails(self, fault: Fault, kind: Kind) -> None:
        """Fail the next send to any queue."""
        for queue in (self.world.queue, self.world.dead_letters):
            queue.faults.add("send", fault)
        self.send([kind])

    @rule(methods=st.sets(st.sampled_from(METHODS), min_size=1), fault=any_fault, seconds=st.sampled_from([5, 50, 300]))
    def outage(self, methods: set[str], fault: Fault, seconds: float) -> None:
        async def break_down() -> None:
            self.world.queue.faults.during(now(), now() + seconds, fault, *sorted(methods))

        self.run(break_down())

    @precondition(lambda self: self.world.queue.sent)
    @rule(index=any_index, event=st.sampled_from(["duplicate", "expire", "invalidate"]))
    def forget(self, index: int, event: str) -> None:
        """Let SQS forget a deletion or a receipt."""

        async def forget() -> None:
            queue = self.world.queue
            among = queue.sent if event == "duplicate" or not queue.messages else queue.messages
            message = among[-1 - index % len(among)]
            self.world.excused.add(message.body)
            getattr(queue, event)(message)

        self.run(forget())


TestStopsAndOutages = Consumers.TestCase
TestStopsAndOutages.settings = settings(examples(80), stateful_step_count=STEPS)
TestFaultsAndKills = ConsumersUnderFaults.TestCase
TestFaultsAndKills.settings = settings(examples(250), stateful_step_count=STEPS)


def counting_the_stop(attempt: Attempt) -> dict[str, str]:
    return {ATTEMPTS_ATTRIBUTE: str(attempt.number)}


def forgetting_failures(_attempt: Attempt) -> dict[str, str]:
    return {ATTEMPTS_ATTRIBUTE: "0"}


async def showing_again(executor: Executor, lease: Lease, _until: float | None) -> None:
    await executor._leases.show_again(lease)


@pytest.mark.parametrize(
    ("machine", "protection", "fault", "found"),
    [
        (Consumers, COPY, counting_the_stop, r"attempt \d of a '.*' message at .* where \d failed"),
        (Consumers, COPY, forgetting_failures, r"attempt \d of a '.*' message at .* where [1-4] failed"),
        (Consumers, "executor.Executor.hand_over", showing_again, r"attempt \d of a '.*' message at .* where \d failed"),
        (ConsumersUnderFaults, "lease.Lease.is_held", True, "deleted after its lease was lost"),
    ],
)
def test_the_state_machine_finds_what_each_protection_prevents(
    machine: type[Consumers], protection: str, fault: object, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops meet messages that failed before, and deletes meet lost leases: without its protection, each fault is found."""
    monkeypatch.setattr(f"shared.consumer.{protection}", fault)
    # Which examples are drawn depends on the modules that are imported, so the search goes on until it has found one.
    once = settings(
        machine.TestCase.settings,
        max_examples=5_000,
        phases=[Phase.generate],
        print_blob=False,
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError, match=found):
        run_state_machine_as_test(machine, settings=once)
