"""Which messages have become dead letters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from services.operator.dlq.hold import holding
from services.operator.system import System


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message in the dead-letter queue of `service`; `letter` is SQS's id of it, `run` is None for the request of a run."""

    service: str
    letter: str
    run: int | None


class DeadMessages:
    """What the dead-letter queues hold, by the id of the message and by that of its batch.

    Looking hides letters for a moment, so a queue is read again only when its count has changed, or when another command
    had letters of it in hand. Of each queue `limit` letters are read; None: all.
    """

    def __init__(self, system: System, limit: int | None = None) -> None:
        self._queues = system.dead_letters
        self._limit = limit
        self._counts: dict[str, int] = {}
        self._messages: dict[str, dict[str, DeadMessage]] = {}

    async def find(self, wanted: Iterable[UUID]) -> dict[UUID, DeadMessage]:
        """Those of the messages and batches that are dead letters."""
        for service in self._queues:
            await self._read(service)
        ids = {str(one): one for one in wanted}
        return {ids[name]: found[name] for found in self._messages.values() for name in ids.keys() & found.keys()}

    async def _read(self, service: str) -> None:
        depth = await self._queues[service].depth()
        count = depth.visible + depth.in_flight
        if count == self._counts.get(service):
            return
        found: dict[str, DeadMessage] = {}
        if count:
            async with holding(service, self._queues[service]) as hold:
                seen = 0
                async for letter in hold.letters():
                    if seen == self._limit:
                        break
                    seen += 1
                    names = {str(letter.event_id), str(letter.batch_id)}
                    found |= dict.fromkeys(names, DeadMessage(service, letter.id, letter.run))
            count = -1 if hold.elsewhere else count
        self._counts[service], self._messages[service] = count, found
