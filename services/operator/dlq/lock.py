"""One operation at a time on a dead-letter queue, whoever starts it and wherever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.operator.dlq.operation import Operation, now
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.object_store import ConflictError, ObjectStore, replace_ours
from shared.stored_documents import read_stored

LIFE = timedelta(seconds=60)  # what a killed operation keeps the next one waiting
RENEWAL = LIFE / 4
CLOCK_SKEW = timedelta(seconds=5)  # two operators' clocks differ
_FAR_AHEAD = timedelta(days=1)  # no clock is that wrong


class LockedError(Exception):
    """Somebody else works on these dead letters. Recovery: wait until they have finished."""


class _Stored(BaseModel):
    """`token` names the holder. `until` None: it is free."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: UUID
    operation: str
    operator: str
    until: AwareDatetime | None


@asynccontextmanager
async def locked(objects: ObjectStore, bucket: str, operation: Operation) -> AsyncIterator[None]:
    """Nobody else works on the dead letters of the operation's service inside; who loses the lock is cancelled.

    Raises: LockedError, also when the lock was lost inside.
    """
    lock = _Lock(objects, bucket, operation)
    await lock.take()
    inside = cast("asyncio.Task[None]", asyncio.current_task())
    renewal = asyncio.create_task(lock.keep(inside))
    try:
        yield
    except asyncio.CancelledError:
        if lock.is_lost:
            inside.uncancel()
            text = f"the lock of {operation.service}'s dead letters was lost; `starlift dlq audit` says who has it"
            raise LockedError(text) from None
        raise
    finally:
        renewal.cancel()
        await lock.free()


class _Lock:
    def __init__(self, objects: ObjectStore, bucket: str, operation: Operation) -> None:
        self.is_lost = False
        self._objects = objects
        self._place = bucket, f"dead-letters/locks/{operation.service}.json"
        self._operation = operation
        self._token = uuid4()
        self._etag: str | None = None
        self._until = now()

    async def take(self) -> None:
        """Raises: LockedError."""
        found = await self._objects.read(*self._place)
        _require_free(None if found is None else _read(self._place, found.body), self._operation.service)
        self._etag = None if found is None else found.etag
        until = now() + LIFE
        await self._write(until)
        self._until = until

    async def keep(self, inside: asyncio.Task[None]) -> None:
        """Renew it until it is lost; then `inside` is cancelled. What nobody expected is a loss, too."""
        with suppress(Exception):
            while (left := self._left_s) > 0:
                await asyncio.sleep(min(RENEWAL.total_seconds(), left))
                with suppress(TransientError, DependencyDownError, TimeoutError):
                    await self._renew()
        self.is_lost = True
        inside.cancel()

    async def free(self) -> None:
        """The next one need not wait. Where it fails, or takes too long, the lock ends by itself."""
        with suppress(LockedError, TransientError, DependencyDownError, PermanentError, TimeoutError):
            async with asyncio.timeout(self._left_s):
                await self._write(None)

    async def _renew(self) -> None:
        """Whose answer comes when the lock has ended comes too late. Raises: TimeoutError, LockedError."""
        until = now() + LIFE
        async with asyncio.timeout(self._left_s):
            await self._write(until)
        self._until = until

    @property
    def _left_s(self) -> float:
        """By the wall clock, as others see it, which goes on while a laptop sleeps. Less than a millisecond is nothing."""
        return max(0.0, round((self._until - now()).total_seconds(), 3))

    async def _write(self, until: datetime | None) -> None:
        """Raises: LockedError."""
        operation = self._operation
        lock = _Stored(token=self._token, operation=operation.id, operator=operation.operator, until=until)
        body = lock.model_dump_json().encode()
        try:
            self._etag = await replace_ours(self._objects, *self._place, body, expected=self._etag, is_ours=self._is_ours)
        except ConflictError as error:
            text = "somebody else has just begun with these dead letters; wait until they have finished"
            raise LockedError(text) from error

    def _is_ours(self, stored: bytes) -> bool:
        return _read(self._place, stored).token == self._token


def _read(place: tuple[str, str], stored: bytes) -> _Stored:
    def parse(stored: bytes) -> _Stored:
        lock = _Stored.model_validate_json(stored)
        if lock.until is not None and lock.until > now() + _FAR_AHEAD:
            raise ValueError(lock.until)
        return lock

    remedy = "delete it when no `starlift dlq` command is running"
    return read_stored(parse, "/".join(place), stored, what="lock of dead letters", remedy=remedy)


def _require_free(lock: _Stored | None, service: str) -> None:
    if lock is not None and lock.until is not None and now() < lock.until + CLOCK_SKEW:
        raise LockedError(
            f"{lock.operator} works on {service}'s dead letters (operation {lock.operation}); wait until they have "
            f"finished, or, if they were killed, until {lock.until + CLOCK_SKEW:%H:%M:%S} UTC"
        )
