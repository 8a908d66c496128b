"""The loop: receives for free slots, starts a task per delivery, and drains when it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime, timedelta
from random import Random

import structlog

from shared import health
from shared.clock import utc_now
from shared.consumer.acknowledgement import Acknowledger
from shared.consumer.backoff import probe_delay
from shared.consumer.executor import Executor
from shared.consumer.lease import Lease, Leases
from shared.consumer.outages import Outages
from shared.consumer.rules import Handler, Probe, Rules
from shared.errors import PermanentError
from shared.logs import error_text
from shared.queue import Delivery, Queue

TURN = timedelta(seconds=5)  # the longest turn of the loop while it has no free slot
# A stop, once the drain budget is over. CLEAN_UP and FLUSH together fit into STOP_MARGIN of shared/settings.py.
CLEAN_UP = timedelta(seconds=9)  # for cancelled handlers to end, and for their messages to be handed over as copies
SHOW_AGAIN = timedelta(seconds=3)  # the end of CLEAN_UP: too late for a copy, so a message is shown again
FLUSH = timedelta(seconds=5)  # for the last deletes

_log = structlog.stdlib.get_logger()


class Consumer:
    """Works on the deliveries of one queue, `rules.slots` at once, until `stop`.

    Everything waits on the event loop's clock, and `rng` draws every delay: a test may drive both.
    """

    def __init__(
        self,
        handler: Handler,
        rules: Rules,
        *,
        queue: Queue,
        dead_letters: Queue,
        probes: Mapping[str, Probe],
        rng: Random,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._rules = rules
        self._queue = queue
        self._rng = rng
        self._leases = Leases(queue, rules.visibility_timeout)
        self._acknowledger = Acknowledger(queue, self._leases, rng)
        self._outages = Outages(probes, rng)
        self._executor = Executor(
            handler,
            rules,
            queue=queue,
            dead_letters=dead_letters,
            leases=self._leases,
            acknowledger=self._acknowledger,
            outages=self._outages,
            rng=rng,
            now=now,
        )
        self._running: dict[asyncio.Task[None], Lease] = {}
        self._slot_freed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stop_at = 0.0

    def is_working(self) -> bool:
        """Whether a message is being worked on."""
        return bool(self._running)

    def stop(self) -> None:
        """Receive no more, let handlers finish within the drain budget, hand over the rest; `run` then returns."""
        if not self._stopping.is_set():
            self._stop_at = asyncio.get_running_loop().time() + self._rules.drain_budget.total_seconds()
            self._stopping.set()
            self._slot_freed.set()
            self._outages.abandon()
            _log.info("stopping", working_on=len(self._running))

    async def run(self) -> None:
        """Run until `stop`. Raises: an ExceptionGroup of a PermanentError if the queue refuses our first request."""
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(self._leases.keep()), group.create_task(self._acknowledger.run())]
            receiving = group.create_task(self._receive_until_stopped(group))
            await self._stopping.wait()
            await self._drain(receiving)
            for task in background:
                task.cancel()

    async def _receive_until_stopped(self, group: asyncio.TaskGroup) -> None:
        """Receive as many deliveries as there are slots for; none while a dependency is down."""
        failures = 0
        was_served = False
        while not self._stopping.is_set():
            self._beat()
            limit = 0 if self._outages.down else self._rules.slots - len(self._running)
            if limit == 0:
                self._slot_freed.clear()
                await _at_most(TURN, self._slot_freed.wait())
                continue
            try:
                deliveries = await self._queue.receive(
                    limit, wait=self._rules.poll_wait, visibility=self._rules.visibility_timeout
                )
            except Exception as error:
                if isinstance(error, PermanentError) and not was_served:
                    raise
                failures += 1
                _log.warning("receive_failed", reason=error_text(error))
                await _at_most(probe_delay(failures, self._rng), self._stopping.wait())
                continue
            failures, was_served = 0, True
            self._start(deliveries, group)

    def _beat(self) -> None:
        if self._rules.health_file is None:
            return
        try:
            health.beat(self._rules.health_file, self._outages.down)
        except OSError as error:  # a full disk: the file grows old, which the health check sees
            _log.warning("health_file_not_written", reason=error.strerror)

    def _start(self, deliveries: list[Delivery], group: asyncio.TaskGroup) -> None:
        """Start a task for each; what a poll brings after `stop` is handed over."""
        for delivery in deliveries:
            lease = self._leases.take(delivery)
            lease.task = group.create_task(self._hand_over(lease) if self._stopping.is_set() else self._work(lease))
            self._running[lease.task] = lease
            lease.task.add_done_callback(self._free_slot)

    def _free_slot(self, task: asyncio.Task[None]) -> None:
        lease = self._running.pop(task)
        if task.cancelled():
            self._leases.release(lease)
        self._slot_freed.set()

    async def _work(self, lease: Lease) -> None:
        """Work on a delivery. If we interrupt it ourselves, nothing has failed: it is handed over."""
        try:
            await self._executor.execute(lease)
        except asyncio.CancelledError:
            if not lease.is_held or not (lease.is_old or self._stopping.is_set()):
                raise
            await self._hand_over(lease)

    async def _hand_over(self, lease: Lease) -> None:
        until = self._stop_at + (CLEAN_UP - SHOW_AGAIN).total_seconds() if self._stopping.is_set() else None
        await self._executor.hand_over(lease, until)

    async def _drain(self, receiving: asyncio.Task[None]) -> None:
        """Wait for the poll in flight first: it brings more to hand over, and meanwhile the handlers continue."""
        for tasks in ({receiving}, self._running):
            await _wait_for(self._stop_at - asyncio.get_running_loop().time(), tasks)
        receiving.cancel()
        for lease in self._running.values():
            lease.interrupt()
        await _wait_for(CLEAN_UP.total_seconds(), self._running)
        await _at_most(FLUSH, self._acknowledger.flush())
        _log.info("stopped", left=len(self._running))


async def _wait_for(seconds: float, tasks: Collection[asyncio.Task[None]]) -> None:
    """Wait for tasks to end, but not for longer than `seconds`; they are not cancelled."""
    if tasks:
        await asyncio.wait(tasks, timeout=max(0, seconds))


async def _at_most(span: timedelta, waiting: Awaitable[object]) -> None:
    """Wait, but not for longer than `span`."""
    try:
        async with asyncio.timeout(span.total_seconds()):
            await waiting
    except TimeoutError:
        return
