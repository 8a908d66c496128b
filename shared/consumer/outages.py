"""Waiting for what every message needs: while a database is down nothing is received and no attempt is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from random import Random

import structlog

from shared.consumer.backoff import probe_delay
from shared.consumer.rules import Probe
from shared.errors import DependencyDownError, PermanentError, ServerBusyError, TransientError
from shared.logs import error_text

PROBE_TIMEOUT = timedelta(seconds=10)

_log = structlog.stdlib.get_logger()


class Outages:
    """Which dependencies are down, and the probes that find out when they are up again."""

    def __init__(self, probes: Mapping[str, Probe], rng: Random) -> None:
        self._probes = probes
        self._rng = rng
        self._down: dict[str, asyncio.Event] = {}
        self._waits: dict[asyncio.Task[None], None] = {}  # in their order, in which a stop cancels them
        self._is_abandoned = False

    @property
    def down(self) -> list[str]:
        """The names of the dependencies that are down."""
        return sorted(self._down)

    def has_probe(self, dependency: str) -> bool:
        """Whether an outage of it can be waited for."""
        return dependency in self._probes

    def abandon(self) -> None:
        """Cancel every wait, now and from now on: a service that stops waits for no dependency."""
        self._is_abandoned = True
        for wait in self._waits:
            wait.cancel()

    async def wait_until_up(self, error: DependencyDownError, times: int) -> None:
        """Wait until the dependency answers its probe. The first message that found it down probes, the others wait for that.

        `times` is how often this attempt has met an outage, from 1: where the dependency answers its probe and fails the
        message, that message waits longer each time. An unknown error of a probe is raised.
        """
        if self._is_abandoned:
            raise asyncio.CancelledError
        wait = asyncio.create_task(self._wait(error, times))
        self._waits[wait] = None
        wait.add_done_callback(self._waits.pop)
        await wait

    async def _wait(self, error: DependencyDownError, times: int) -> None:
        if times > 1:  # it answers its probe: only the message that fails on it waits longer
            await asyncio.sleep(probe_delay(times, self._rng).total_seconds())
        outage_over = self._down.get(error.dependency)
        if outage_over is not None:
            await outage_over.wait()
            return
        if isinstance(error, ServerBusyError) and times > 1:  # this message meets it again and again: one warning is enough
            _log.debug("dependency_down", dependency=error.dependency, reason=error_text(error))
        else:
            _log.warning("dependency_down", dependency=error.dependency, reason=error_text(error))
        outage_over = self._down[error.dependency] = asyncio.Event()
        try:
            await self._probe_until_up(error.dependency)
            _log.info("dependency_up", dependency=error.dependency)
        finally:  # a cancelled message leaves the probing to the next one
            del self._down[error.dependency]
            outage_over.set()

    async def _probe_until_up(self, dependency: str) -> None:
        failures = 1
        while True:
            await asyncio.sleep(probe_delay(failures, self._rng).total_seconds())
            try:
                async with asyncio.timeout(PROBE_TIMEOUT.total_seconds()):
                    await self._probes[dependency]()
            except PermanentError:
                return  # a refusal is an answer: the message will meet it, and have its own error
            except (TransientError, DependencyDownError, TimeoutError):
                failures += 1
            else:
                return
