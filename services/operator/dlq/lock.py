"""One operation at a time on a dead-letter queue, whoever starts it and wherever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.operator.dlq.letters import now
from shared.errors import DependencyDownError, TransientError
from shared.object_store import ConflictError, ObjectStore, Versioned

LIFE = timedelta(seconds=60)  # what a killed operation keeps the next one waiting
RENEWAL = LIFE / 4
CLOCK_SKEW = timedelta(seconds=5)  # two operators' clocks differ


class LockedError(Exception):
    """Somebody else works on this dead-letter queue. Recovery: wait until they have finished."""


class _Lock(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    token: UUID  # so that no two writers ever write the same bytes
    operation: str
    operator: str
    until: AwareDatetime | None


@asynccontextmanager
async def locked(objects: ObjectStore, bucket: str, service: str, *, operation: str, operator: str) -> AsyncIterator[None]:
    """Nobody else works on the dead letters of `service` inside; who loses the lock is cancelled.

    Raises: LockedError, also when the lock was lost inside.
    """
    key = f"dead-letters/locks/{service}.json"
    found = await objects.read(bucket, key)
    _require_free(found, service)
    etag = await _write(objects, bucket, key, _fresh(operation, operator), found.etag if found else None)
    inside = cast("asyncio.Task[None]", asyncio.current_task())
    lost = False
    writing = asyncio.Lock()

    async def renew() -> None:
        nonlocal etag, lost
        deadline = now() + LIFE
        while now() < deadline:
            await asyncio.sleep(RENEWAL.total_seconds())
            try:
                async with writing:
                    etag = await _write(objects, bucket, key, _fresh(operation, operator), etag)
                deadline = now() + LIFE
            except LockedError:
                break
            except (TransientError, DependencyDownError):
                continue
        lost = True
        inside.cancel()

    renewal = asyncio.create_task(renew())
    try:
        yield
    except asyncio.CancelledError:
        if lost:
            inside.uncancel()
            raise LockedError(f"the lock of {service}'s dead letters was lost; `starlift dlq audit` says who has it") from None
        raise
    finally:
        async with writing:
            renewal.cancel()
        if not lost:
            freed = _Lock(token=uuid4(), operation=operation, operator=operator, until=None)
            with suppress(LockedError, TransientError, DependencyDownError):
                await _write(objects, bucket, key, freed, etag)


def _fresh(operation: str, operator: str) -> _Lock:
    return _Lock(token=uuid4(), operation=operation, operator=operator, until=now() + LIFE)


def _require_free(found: Versioned | None, service: str) -> None:
    lock = None if found is None else _Lock.model_validate_json(found.body)
    if lock is not None and lock.until is not None and now() < lock.until + CLOCK_SKEW:
        raise LockedError(
            f"{lock.operator} works on {service}'s dead letters (operation {lock.operation}); wait until they have "
            f"finished, or, if they were killed, until {lock.until + CLOCK_SKEW:%H:%M:%S} UTC"
        )


async def _write(objects: ObjectStore, bucket: str, key: str, lock: _Lock, expected: str | None) -> str:
    """The new version's etag. Raises: LockedError."""
    body = lock.model_dump_json().encode()
    try:
        return await objects.replace(bucket, key, body, expected=expected)
    except ConflictError as error:
        found = await objects.read(bucket, key)  # our own write may have arrived, and only its answer been lost
        if found is None or found.body != body:
            raise LockedError("somebody else has just begun with these dead letters; wait until they have finished") from error
        return found.etag
