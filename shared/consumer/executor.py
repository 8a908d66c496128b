"""One delivery in, one outcome out: decode the message, handle it, decide what becomes of the delivery, and carry that out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import assert_never

import structlog

from contracts.doorbells import understood
from contracts.failure import FailureReason
from contracts.messages import Message, NewerMessageError, UndecodableMessageError
from shared.consumer.acknowledgement import Acknowledger
from shared.consumer.attempt import Attempt, read_attempt
from shared.consumer.backoff import retry_delay
from shared.consumer.dead_letter import dead_letter_attributes, fingerprint
from shared.consumer.lease import Lease, Leases
from shared.consumer.outages import Outages
from shared.consumer.rules import Handler, Rules
from shared.errors import DependencyDownError, PermanentError, ServerBusyError, TransientError, decisive
from shared.logs import error_text
from shared.outcome import DeadLetter, Defer, Done, Outcome, Retry
from shared.queue import DELAY_MAXIMUM, VISIBILITY_MAXIMUM, Queue

NEWER_MESSAGE_DELAY = timedelta(seconds=60)  # a rolling deployment takes minutes
BUSY_DELAY = timedelta(seconds=60)  # enlarging a disk takes longer
OUTAGES_MAXIMUM = 10  # in one attempt, each over as soon as it is probed: at least two minutes of a server that comes and goes

_log = structlog.stdlib.get_logger()


class DeferredTooLongError(TransientError):
    """What the message waits for has not come: a deployment, the end of another run."""


class Executor:
    """Decides what becomes of each delivery, and carries it out."""

    def __init__(  # noqa: PLR0913 - the collaborators, built in consumer.py and nowhere else
        self,
        handler: Handler,
        rules: Rules,
        *,
        queue: Queue,
        dead_letters: Queue,
        leases: Leases,
        acknowledger: Acknowledger,
        outages: Outages,
        rng: Random,
        now: Callable[[], datetime],
    ) -> None:
        self._handler = handler
        self._rules = rules
        self._queue = queue
        self._dead_letters = dead_letters
        self._leases = leases
        self._acknowledger = acknowledger
        self._outages = outages
        self._rng = rng
        self._now = now

    async def execute(self, lease: Lease) -> None:
        """Work on one delivery to its end.

        A failure around the handler, of a queue or of our own code, costs this delivery an attempt and nothing else: no sender
        of a message may be able to end the service.
        """
        attempt = read_attempt(lease.delivery, self._now())
        message_id, loop = lease.delivery.message_id, asyncio.get_running_loop()
        try:
            structlog.contextvars.bind_contextvars(message_id=message_id)
            _log.debug("message_received", attempt=attempt.number)
            if self._acknowledger.is_done(message_id):
                await self._acknowledger.acknowledge(lease)
                return
            started_at = loop.time()
            outcome = within_limits(await self._outcome(attempt), attempt, self._rules, self._now())
            if lease.is_held:  # a handler may return in spite of its cancellation
                lease.is_settling = True
                await self._carry_out(outcome, lease, attempt, seconds=round(loop.time() - started_at, 3))
        except Exception as error:  # noqa: BLE001 - see above
            await self._retry(lease, attempt, Retry(retry_delay(attempt.number, self._rng), error_text(error)))

    async def _outcome(self, attempt: Attempt) -> Outcome:
        """Decode and handle the message; while a dependency is down there is no outcome.

        A dependency that keeps answering its probe but fails this message each time is not down: a bucket that only this
        message names is gone, or its batch crashes the server. That counts as a failed attempt, unless the dependency itself
        reports that it is busy: then the message is deferred, for a limited time.
        """
        down: DependencyDownError | None = None
        times = 0
        while True:
            try:
                if down is not None:
                    await self._outages.wait_until_up(down, times)
                    if self._acknowledger.is_done(attempt.delivery.message_id):  # SQS delivered it twice, and we did the other
                        return Done()
                return await self._handle(understood(attempt.delivery.body))
            except Exception as error:  # noqa: BLE001 - the one place where any error becomes an outcome
                cause = decisive(error)
            if isinstance(cause, DependencyDownError) and self._outages.has_probe(cause.dependency):
                if times < OUTAGES_MAXIMUM:
                    down, times = cause, times + 1
                    continue
                if isinstance(cause, ServerBusyError):
                    return Defer(BUSY_DELAY, error_text(cause))
            return outcome_of(cause, attempt, self._rules, self._rng)

    async def _handle(self, message: Message) -> Outcome:
        """Run the handler, within its limit. What it logs names the message."""
        structlog.contextvars.bind_contextvars(type=message.type)
        run = getattr(message.data, "run", None)
        if run is not None:
            structlog.contextvars.bind_contextvars(run=run, batch_id=str(getattr(message.data, "batch_id", "")))
        limit = self._rules.handler_limit
        timer = asyncio.timeout(limit.total_seconds())
        try:
            async with timer:
                return await self._handler(message)
        except TimeoutError as error:
            if not timer.expired():
                raise
            advice = "raise STARLIFT_HANDLER_LIMIT_S or send smaller batches"
            raise TransientError(f"{message.type} took longer than its limit of {limit}; {advice}") from error

    async def _carry_out(self, outcome: Outcome, lease: Lease, attempt: Attempt, *, seconds: float) -> None:
        """Carry out an outcome. A copy is sent before its message is deleted: a crash between leaves both, never none."""
        body = attempt.delivery.body
        match outcome:
            case Done():
                await self._acknowledger.acknowledge(lease)
                _log.info("message_done", seconds=seconds)
            case Retry():
                await self._retry(lease, attempt, outcome)
            case Defer():
                delay = min(outcome.delay, DELAY_MAXIMUM)
                await self._queue.send(body, delay=delay, attributes=attempt.deferral_attributes(self._now()))
                await self._acknowledger.acknowledge(lease)
                _log.info("message_deferred", delay_s=round(delay.total_seconds(), 3), reason=outcome.reason)
            case DeadLetter():
                attributes = dead_letter_attributes(
                    attempt, outcome, rules=self._rules, queue=self._queue.name, now=self._now()
                )
                await self._dead_letters.send(body, attributes=attributes)
                await self._acknowledger.acknowledge(lease)
                _log.error(
                    "message_dead_lettered",
                    attempt=attempt.number,
                    reason=outcome.reason.value,
                    error_type=type(outcome.error).__qualname__,
                    error=error_text(outcome.error),
                    fingerprint=fingerprint(outcome.error),
                )
            case _:
                assert_never(outcome)

    async def _retry(self, lease: Lease, attempt: Attempt, outcome: Retry) -> None:
        delay = min(outcome.delay, VISIBILITY_MAXIMUM)
        await self._leases.show_again(lease, delay)
        seconds = round(delay.total_seconds(), 3)
        _log.warning("message_retried", attempt=attempt.number, delay_s=seconds, reason=outcome.reason)

    async def hand_over(self, lease: Lease, until: float | None) -> None:
        """Give up a delivery in which nothing failed. A copy takes its place, since showing it again would count an attempt.

        The copy has to be sent before `until`, in the event loop's seconds; otherwise the message is shown again, at the price
        of one attempt. A crash between sending and deleting leaves both: ids make that harmless.
        """
        attempt = read_attempt(lease.delivery, self._now())
        try:
            async with asyncio.timeout_at(until):
                await self._queue.send(lease.delivery.body, attributes=attempt.copy_attributes())
        except Exception as error:  # noqa: BLE001 - as in execute
            reason = "there is no time left" if isinstance(error, TimeoutError) else error_text(error)
            _log.warning("message_shown_again", message_id=lease.delivery.message_id, reason=reason)
            await self._leases.show_again(lease)
            return
        await self._acknowledger.acknowledge(lease)
        _log.info("message_handed_over", message_id=lease.delivery.message_id, attempts=attempt.number - 1)


def outcome_of(error: Exception, attempt: Attempt, rules: Rules, rng: Random) -> Outcome:
    """What an error means for the message, by what recovers it."""
    match error:
        case NewerMessageError():
            return Defer(NEWER_MESSAGE_DELAY, error_text(error))
        case UndecodableMessageError():
            return DeadLetter(FailureReason.UNDECODABLE, error)
        case PermanentError():
            return DeadLetter(FailureReason.PERMANENT, error)
        case _ if attempt.number >= rules.attempts:
            return DeadLetter(FailureReason.EXHAUSTED, error)
        case _:
            return Retry(retry_delay(attempt.number, rng), error_text(error))


def within_limits(outcome: Outcome, attempt: Attempt, rules: Rules, now: datetime) -> Outcome:
    """The outcome, unless it asks for another attempt after the last one, or for a deferral after `defer_limit`."""
    match outcome:
        case Retry() if attempt.number >= rules.attempts:
            return DeadLetter(FailureReason.EXHAUSTED, TransientError(outcome.reason))
        case Defer() if now - (attempt.deferred_since or now) >= rules.defer_limit:
            advice = f"deferred for longer than {rules.defer_limit}; remove the cause, then replay the dead letters"
            return DeadLetter(FailureReason.EXHAUSTED, DeferredTooLongError(f"{outcome.reason}; {advice}"))
        case _:
            return outcome
