"""One delivery in, one outcome out: what a message does, what an error means, and what becomes of the delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import assert_never

import structlog

from contracts.failure import FailureReason
from contracts.messages import Message, NewerMessageError, UndecodableMessageError, decode
from shared.clock import utc_now
from shared.consumer.acknowledgement import Acknowledger
from shared.consumer.attempts import attempt_number, deferred, deferred_since, handed_over
from shared.consumer.backoff import retry_delay
from shared.consumer.dead_letter import dead_letter_attributes, error_text, fingerprint
from shared.consumer.dependencies import Dependencies
from shared.consumer.lease import Lease, Leases
from shared.consumer.rules import Handler, Rules
from shared.errors import DependencyDownError, PermanentError, ServerBusyError, TransientError
from shared.outcome import DeadLetter, Defer, Done, Outcome, Retry
from shared.queue import DELAY_MAXIMUM, VISIBILITY_MAXIMUM, Delivery, Queue

NEWER_MESSAGE_DELAY = timedelta(seconds=60)  # a rolling deployment takes minutes
BUSY_DELAY = timedelta(seconds=60)  # enlarging a disk takes longer
OUTAGES_MAXIMUM = (
    10  # that end with an answered probe, within one attempt: two minutes and more of a server that comes and goes
)

_log = structlog.stdlib.get_logger()


class DeferredTooLongError(TransientError):
    """What the message waits for has not come: a deployment, the end of another run."""


class Executor:
    """Decides what becomes of a delivery, and does it."""

    def __init__(  # noqa: PLR0913 - the collaborators, built by consumer.py and by nobody else
        self,
        handler: Handler,
        rules: Rules,
        *,
        queue: Queue,
        dead_letters: Queue,
        leases: Leases,
        acknowledger: Acknowledger,
        dependencies: Dependencies,
        rng: Random,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._handler = handler
        self._rules = rules
        self._queue = queue
        self._dead_letters = dead_letters
        self._leases = leases
        self._acknowledger = acknowledger
        self._dependencies = dependencies
        self._rng = rng
        self._now = now

    async def execute(self, lease: Lease) -> None:
        """Work on one delivery to its end.

        A failure around the handler, of a queue or of our own code, costs this delivery an attempt and nothing else: no sender
        of a message may be able to end the service.
        """
        try:
            await self._execute(lease)
        except Exception as error:  # noqa: BLE001 - see above
            await self._show_again(lease, Retry(retry_delay(attempt_number(lease.delivery), self._rng), error_text(error)))

    async def _execute(self, lease: Lease) -> None:
        delivery = lease.delivery
        structlog.contextvars.bind_contextvars(message_id=delivery.message_id)
        _log.debug("message_received", attempt=attempt_number(delivery))
        if self._acknowledger.is_done(delivery.message_id):
            await self._acknowledger.acknowledge(lease)
            return
        started_at = asyncio.get_running_loop().time()
        outcome = self._within_limits(await self._outcome(delivery), delivery)
        if not lease.is_held:  # a handler may return in spite of its cancellation
            return
        lease.is_settling = True
        seconds = round(asyncio.get_running_loop().time() - started_at, 3)
        await self._settle(lease, outcome, seconds)

    async def hand_over(self, lease: Lease, until: float | None) -> None:
        """Gives up a delivery in which nothing failed. A copy takes its place, since showing it again would count an attempt.

        The copy is sent before the loop's second `until`; later, or where it can't be sent, the message is shown again at the
        price of one attempt. A crash between sending and deleting leaves both: ids make that harmless.
        """
        delivery = lease.delivery
        try:
            async with asyncio.timeout_at(until):
                await self._queue.send(delivery.body, attributes=handed_over(delivery, self._now()))
        except Exception as error:  # noqa: BLE001 - as in execute
            reason = "there is no time left" if isinstance(error, TimeoutError) else error_text(error)
            _log.warning("message_shown_again", message_id=delivery.message_id, reason=reason)
            await self._leases.hand_back([lease])
            return
        await self._acknowledger.acknowledge(lease)
        _log.info("message_handed_over", message_id=delivery.message_id, attempts=attempt_number(delivery) - 1)

    async def _outcome(self, delivery: Delivery) -> Outcome:
        """Return the outcome of the delivery; while a dependency is down there is none.

        A dependency that keeps answering its probe but fails this message each time is not down: a bucket that only this
        message names is gone, or its batch crashes the server. That counts as a failed attempt, unless the dependency itself
        reports that it is busy: then the message is deferred, for a limited time.
        """
        outage: DependencyDownError | None = None
        outages = 0
        while True:
            try:
                if outage is not None:
                    await self._dependencies.wait_until_up(outage, outages)
                    if self._acknowledger.is_done(delivery.message_id):  # SQS has delivered it twice, and we had the other
                        return Done()
                return await self._attempt(delivery)
            except Exception as error:  # noqa: BLE001 - the one place where any error becomes an outcome
                cause = decisive(error)
            if not isinstance(cause, DependencyDownError) or not self._dependencies.has_probe(cause.dependency):
                return self._classed(cause, delivery)
            if outages == OUTAGES_MAXIMUM:
                return (
                    Defer(BUSY_DELAY, error_text(cause))
                    if isinstance(cause, ServerBusyError)
                    else self._classed(cause, delivery)
                )
            outage, outages = cause, outages + 1

    async def _attempt(self, delivery: Delivery) -> Outcome:
        """Runs the handler, within its limit."""
        message = decode(delivery.body)
        bind_message(message)
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

    def _classed(self, error: BaseException, delivery: Delivery) -> Outcome:
        """What an error means for the message, by what recovers it."""
        match error:
            case NewerMessageError():
                return Defer(NEWER_MESSAGE_DELAY, error_text(error))
            case UndecodableMessageError():
                return DeadLetter(FailureReason.UNDECODABLE, error)
            case PermanentError():
                return DeadLetter(FailureReason.PERMANENT, error)
            case _ if attempt_number(delivery) >= self._rules.attempts:
                return DeadLetter(FailureReason.EXHAUSTED, error)
            case _:
                return Retry(retry_delay(attempt_number(delivery), self._rng), error_text(error))

    def _within_limits(self, outcome: Outcome, delivery: Delivery) -> Outcome:
        """A handler may ask for another attempt, or for later: not behind the last attempt, and not for ever."""
        now = self._now()
        match outcome:
            case Retry() if attempt_number(delivery) >= self._rules.attempts:
                return DeadLetter(FailureReason.EXHAUSTED, TransientError(outcome.reason))
            case Defer() if now - deferred_since(delivery, now) >= self._rules.defer_limit:
                advice = f"deferred for longer than {self._rules.defer_limit}; remove the cause, then replay the dead letters"
                return DeadLetter(FailureReason.EXHAUSTED, DeferredTooLongError(f"{outcome.reason}; {advice}"))
            case _:
                return outcome

    async def _settle(self, lease: Lease, outcome: Outcome, seconds: float) -> None:
        """Does what the outcome says. A copy is sent before its message is deleted: a crash between leaves both, never none."""
        match outcome:
            case Done():
                await self._acknowledger.acknowledge(lease)
                _log.info("message_done", seconds=seconds)
            case Retry():
                await self._show_again(lease, outcome)
            case Defer():
                await self._defer(lease, outcome)
            case DeadLetter():
                await self._bury(lease, outcome)
            case _:
                assert_never(outcome)

    async def _show_again(self, lease: Lease, outcome: Retry) -> None:
        delay = min(outcome.delay, VISIBILITY_MAXIMUM)
        await self._leases.hand_back([lease], delay)
        attempt = attempt_number(lease.delivery)
        _log.warning("message_retried", attempt=attempt, delay_s=round(delay.total_seconds(), 3), reason=outcome.reason)

    async def _defer(self, lease: Lease, outcome: Defer) -> None:
        delay = min(outcome.delay, DELAY_MAXIMUM)
        await self._queue.send(lease.delivery.body, delay=delay, attributes=deferred(lease.delivery, self._now()))
        await self._acknowledger.acknowledge(lease)
        _log.info("message_deferred", delay_s=round(delay.total_seconds(), 3), reason=outcome.reason)

    async def _bury(self, lease: Lease, outcome: DeadLetter) -> None:
        delivery = lease.delivery
        attributes = dead_letter_attributes(delivery, outcome, rules=self._rules, queue=self._queue.name, now=self._now())
        await self._dead_letters.send(delivery.body, attributes=attributes)
        await self._acknowledger.acknowledge(lease)
        _log.error(
            "message_dead_lettered",
            attempt=attempt_number(delivery),
            reason=outcome.reason.value,
            error_type=type(outcome.error).__qualname__,
            error=error_text(outcome.error),
            fingerprint=fingerprint(outcome.error),
        )


def bind_message(message: Message) -> None:
    """Every later event of this task tells which message it is about."""
    structlog.contextvars.bind_contextvars(type=message.type)
    run = getattr(message.data, "run", None)
    if run is not None:
        structlog.contextvars.bind_contextvars(run=run, batch_id=str(getattr(message.data, "batch_id", "")))


def decisive(error: Exception) -> Exception:
    """The error of a group that decides: an outage first, since the others may follow from it; then what can't be mended."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [decisive(leaf) for leaf in error.exceptions]
    for kind in (DependencyDownError, PermanentError):
        found = next((leaf for leaf in leaves if isinstance(leaf, kind)), None)
        if found is not None:
            return found
    return leaves[0]
