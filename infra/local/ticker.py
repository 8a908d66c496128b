"""The schedule of the local stack: asks for a run every so often, as EventBridge Scheduler does on AWS.

python -m infra.local.ticker           (docker-compose.yml; the environment says where: AWS_ENDPOINT_URL,
                                        STARLIFT_INGESTION_QUEUE_URL, STARLIFT_HEALTH_FILE)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from contracts.messages import IngestSource, IngestSourceData, Trigger, encode
from infra.local.bootstrap import client
from infra.topology import read_topology
from shared.envelope import opening
from shared.health import beat


class Ticker:
    """Sends when it is due: call `tick` more often than that. Ticks that were missed are not made up for."""

    def __init__(self, send: Callable[[], None], interval: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._interval_s = interval.total_seconds()
        self._clock = clock
        self._due = clock()

    def tick(self) -> bool:
        """Send if it is time, as on the first call; return whether it was."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + self._interval_s - (now - self._due) % self._interval_s  # a late tick does not delay the next one
        self._send()
        return True


def send_ingest(endpoint_url: str, region: str, queue_url: str, source_name: str) -> None:
    """Put a scheduled request for a run into the ingestion queue."""
    message = IngestSource(
        **opening("starlift/schedule"), data=IngestSourceData(source_name=source_name, trigger=Trigger.SCHEDULE)
    )
    _client(endpoint_url, region).send_message(QueueUrl=queue_url, MessageBody=encode(message))


@cache
def _client(endpoint_url: str, region: str) -> Any:
    """A client for all ticks: to make one takes as much time as a small run."""
    return client("sqs", endpoint_url, region)


def main() -> None:
    """Tick as often as the first schedule of the topology, until it is stopped. A failure ends it; compose restarts it."""
    topology = read_topology()
    schedule = next(iter(topology.schedules.values()))
    endpoint_url, queue_url = os.environ["AWS_ENDPOINT_URL"], os.environ["STARLIFT_INGESTION_QUEUE_URL"]
    health_file = Path(os.environ["STARLIFT_HEALTH_FILE"])
    ticker = Ticker(lambda: send_ingest(endpoint_url, topology.region, queue_url, schedule.source), schedule.interval)
    while True:
        ticker.tick()
        beat(health_file, ())
        time.sleep(1)


if __name__ == "__main__":
    main()
