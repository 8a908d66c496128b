"""The queue runtime alone: messages a second through the consumer, beside a bare loop that receives and deletes.

Both empty the same queue over the same clients. The handler does nothing, so the difference is what the consumer adds to a
message: its lease, its outcome, its acknowledgement.
"""

from __future__ import annotations

import time
from datetime import timedelta
from random import Random
from statistics import median

from contracts.messages import IngestSource, IngestSourceData, Message, Trigger, encode
from infra.local.bootstrap import client
from infra.local.stack import Stack
from shared.consumer import Consumer, Rules
from shared.envelope import opening
from shared.outcome import Done, Outcome
from shared.queue import BATCH_MAXIMUM, Outgoing, Queue
from shared.service import open_clients

MESSAGES, ROUNDS = 2_000, 3
VISIBILITY, POLL = timedelta(seconds=60), timedelta(seconds=1)


async def measure_runtime(stack: Stack) -> dict[str, float]:
    """Messages a second both ways, the medians of rounds that alternate."""
    endpoint, region = stack.resources.endpoint_url, stack.resources.region
    sqs = client("sqs", endpoint, region)
    urls = [sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("bench-runtime", "bench-runtime-dlq")]
    rates: dict[str, list[float]] = {"bare_loop": [], "consumer": []}
    async with open_clients(region) as clients:
        queue, dead_letters = map(clients.queue, urls)
        for _ in range(ROUNDS):
            await _fill(queue)
            rates["bare_loop"].append(MESSAGES / await _bare(queue))
            await _fill(queue)
            rates["consumer"].append(MESSAGES / await _consume(queue, dead_letters))
    medians = {name: round(median(found), 1) for name, found in rates.items()}
    return {**medians, "ratio": round(medians["consumer"] / medians["bare_loop"], 3)}


async def _fill(queue: Queue) -> None:
    data = IngestSourceData(source_name="bench", trigger=Trigger.SCHEDULE)
    bodies = [encode(IngestSource(**opening("starlift/bench"), data=data)) for _ in range(MESSAGES)]
    await queue.send_all([Outgoing(body) for body in bodies])


async def _bare(queue: Queue) -> float:
    """Seconds until a loop has received and deleted everything."""
    began, left = time.monotonic(), MESSAGES
    while left:
        deliveries = await queue.receive(BATCH_MAXIMUM, wait=POLL, visibility=VISIBILITY)
        await queue.delete([delivery.receipt_handle for delivery in deliveries])
        left -= len(deliveries)
    return time.monotonic() - began


async def _consume(queue: Queue, dead_letters: Queue) -> float:
    """Seconds until a consumer has worked on everything; its last deletes end less than a tenth of a second later."""
    left, began, ended = MESSAGES, time.monotonic(), 0.0

    async def handle(_message: Message) -> Outcome:
        nonlocal left, ended
        left -= 1
        if not left:
            ended = time.monotonic()
            consumer.stop()
        return Done()

    rules = Rules(
        service="bench",
        version="1",
        slots=BATCH_MAXIMUM,
        attempts=5,
        handler_limit=VISIBILITY,
        visibility_timeout=VISIBILITY,
        poll_wait=POLL,
        drain_budget=timedelta(seconds=10),
        defer_limit=timedelta(days=1),
    )
    consumer = Consumer(handle, rules, queue=queue, dead_letters=dead_letters, probes={}, rng=Random(1))  # noqa: S311
    await consumer.run()
    return ended - began
