"""A service that dies at a given point, and whose messages arrive twice and late: `python -m tests.chaos.saboteur SERVICE`.

The service's own code runs unchanged; what is wrapped here is the edge to the world, after the effect has happened. The
environment says CHAOS_SEED, CHAOS_POINT (empty: none) and CHAOS_AFTER (how many times the point is passed before it kills).
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, ParamSpec, TypeVar

from services.ingestion import chunks
from services.loading import bulk_load, postgres_warehouse
from services.loading.postgres_warehouse import PostgresWarehouse
from shared.object_store import S3ObjectStore
from shared.queue import NO_ATTRIBUTES, SqsQueue
from tests.chaos.points import ONCE, Point

DOUBLED_SHARE, DELAYED_SHARE = 0.1, 0.1
LONGEST_DELAY_S = 3

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Saboteur:
    """Counts how often its point is passed, and kills its own process there."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._draw = Random(environment["CHAOS_SEED"])  # noqa: S311 (repeatable on purpose)
        self._point = environment.get("CHAOS_POINT", "")
        self._left = 1 if self._point in ONCE else int(environment.get("CHAOS_AFTER", "1"))
        self._told = Path(environment["CHAOS_KILLS"])

    def passed(self, point: Point) -> None:
        """Die here by SIGKILL if it is time: nothing is cleaned up or handed back."""
        if point != self._point:
            return
        self._left -= 1
        if self._left <= 0:
            with self._told.open("a") as kills:
                kills.write(f"{os.getpid()} {point}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def after(
        self, effect: Callable[Parameters, Awaitable[Result]], point: Callable[..., Point]
    ) -> Callable[Parameters, Awaitable[Result]]:
        """Wrap an effect: after it, pass the point that `point` makes of its arguments."""

        async def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            result = await effect(*args, **kwargs)
            self.passed(point(*args))
            return result

        return wrapped

    def unreliable(self, send: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
        """Deliver some messages twice and some late: SQS promises neither once nor in order."""

        async def wrapped(
            queue: SqsQueue, body: str, *, delay: timedelta = timedelta(0), attributes: Mapping[str, str] = NO_ATTRIBUTES
        ) -> str:
            if self._draw.random() < DOUBLED_SHARE:
                await send(queue, body, delay=self._delay(), attributes=attributes)
            if self._draw.random() < DELAYED_SHARE:
                delay = max(delay, self._delay())
            message_id = await send(queue, body, delay=delay, attributes=attributes)
            self.passed(Point.MESSAGE_SENT)
            return message_id

        return wrapped

    def _delay(self) -> timedelta:
        return timedelta(seconds=self._draw.randint(0, LONGEST_DELAY_S))


def _of_replacing(key: str, body: bytes) -> Point:
    if "/chunks/" in key:
        return Point.CHUNK_RECORDED
    return Point.LEASE_TAKEN if b'"token"' in body else Point.STATE_ADVANCED


def sabotage(saboteur: Saboteur) -> None:
    """Wrap the edges to S3, SQS and the warehouse."""
    sharing: Any = chunks
    sharing.LARGE = 5  # batches: the few rows of this source are shared as those of a large one are
    edges: Any = S3ObjectStore
    edges.put = saboteur.after(
        S3ObjectStore.put, lambda _, __, key, ___: Point.MANIFEST_WRITTEN if "/manifests/" in key else Point.OBJECT_WRITTEN
    )
    edges.replace = saboteur.after(S3ObjectStore.replace, lambda _, __, key, body: _of_replacing(key, body))
    queue: Any = SqsQueue
    queue.send = saboteur.unreliable(SqsQueue.send)
    queue.delete = saboteur.after(SqsQueue.delete, lambda *_: Point.INPUT_DELETED)
    loader: Any = postgres_warehouse
    bulk: Any = bulk_load
    bulk._has_true_references = saboteur.after(bulk._has_true_references, lambda *_: Point.BULK_KEYS_BUILT)
    loader.begin = saboteur.after(bulk_load.begin, lambda *_: Point.BULK_LOAD_BEGUN)
    loader.end = bulk.end = saboteur.after(bulk_load.end, lambda *_: Point.BULK_LOAD_ENDED)
    warehouse: Any = PostgresWarehouse
    warehouse.load = saboteur.after(PostgresWarehouse.load, lambda *_: Point.BATCH_COMMITTED)


if __name__ == "__main__":
    sabotage(Saboteur(os.environ))
    runpy.run_module(f"services.{sys.argv[1]}", run_name="__main__", alter_sys=True)
