"""The schedule of the local stack: asks for a run every so often, as EventBridge Scheduler does on AWS."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

from contracts.messages import IngestSource, IngestSourceData, Trigger, encode
from infra.local.aws import client
from shared.envelope import opening


class Ticker:
    """Sends when it is due; whoever drives it calls `tick` more often than that. Ticks that were missed are not made up for."""

    def __init__(self, send: Callable[[], None], interval: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._interval_s = interval.total_seconds()
        self._clock = clock
        self._due = clock()

    def tick(self) -> bool:
        """Whether it was time, the first call included."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + self._interval_s
        self._send()
        return True


def send_ingest(endpoint_url: str, region: str, queue_url: str, source_name: str) -> None:
    """Puts a scheduled request for a run into the ingestion queue."""
    message = IngestSource(
        **opening("starlift/schedule"), data=IngestSourceData(source_name=source_name, trigger=Trigger.SCHEDULE)
    )
    with closing(client("sqs", endpoint_url, region)) as sqs:
        sqs.send_message(QueueUrl=queue_url, MessageBody=encode(message))
