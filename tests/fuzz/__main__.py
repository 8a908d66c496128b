"""Rubbish into every queue and every stored document for a while: `python -m tests.fuzz --seed 1 --minutes 10`.

The real handlers and consumers run on LocalStack and PostgreSQL; the `starlift` command inspects the result. No service may
end, no command may print a traceback, every rubbish message becomes a dead letter with a reason while innocent runs load beside
it, each damaged document is repaired by following its error message, and the proof is EQUAL after every round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import asyncpg
from botocore.exceptions import ClientError

from contracts.failure import FAILURE_ATTRIBUTE, read_failure
from contracts.messages import MESSAGE_BYTES_MAXIMUM, IngestSource, IngestSourceData, Mode, Trigger, encode
from contracts.objects import SourceKeys
from infra.local.databases import LOADER, READER, SOURCE_OWNER
from infra.local.localstack import start_localstack
from infra.local.machine import free_port, remove_place
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.local.totesys.fill import connect, create, fill
from services.remodelling import handler as remodelling
from shared.envelope import opening
from shared.testing import FakeQueue
from tests.fixtures.limits import HANG
from tests.fixtures.localstack import REGION
from tests.fixtures.pipeline import SOURCE
from tests.fixtures.postgres_cluster import TestCluster
from tests.fuzz import rubbish
from tests.fuzz.stand import Stand, open_stand

MESSAGES = 20  # of the first round
MANY_MESSAGES = 100  # of the others
HALF = 0.5
LOOKS: list[tuple[str, ...]] = [
    *(("status", "--json"), ("runs",), ("ingest",), ("resend",), ("verify", "--settle", "1"), ("quarantine", "list")),
    *(("quarantine", "show", "fact_sales_order", "1"), ("trace", "dim_staff", "1"), ("trace", "fact_sales_order", "1")),
]
DEAD_LETTER_LOOKS: list[tuple[str, ...]] = [
    *(("dlq", "list"), ("dlq", "replay"), ("dlq", "replay", "--json"), ("dlq", "export")),
    *(("dlq", "list", "--json"), ("dlq", "audit", "--json"), ("dlq", "replay", "--where", "body.data.run")),
]
DAMAGED = re.compile(r"'(?P<place>[^']+)' is not a valid (?P<remedy>[^;]+; .*)")


class Fuzzer:
    """Plays rounds on a stand; `application` is a session of the source's owner."""

    def __init__(self, stand: Stand, application: asyncpg.Connection, seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self._stand = stand
        self._system = stand.system
        self._application = application
        self._draw = Random(seed)  # noqa: S311 (repeatable on purpose)

    async def play(self, lasting: timedelta) -> None:
        """Play at least one round of each kind, and more until the time is over. Raises: AssertionError."""
        await fill(self._application, orders=20, seed=1)
        await self._application.execute("UPDATE sales_order SET agreed_payment_date = 'soon' WHERE sales_order_id = 1")
        end = time.monotonic() + lasting.total_seconds()
        async with self._stand.serving():
            await self._load(Mode.FULL)
            await self._equal()
            await self._system.dead_letters["ingestion"].send("rubbish")
            await self._stand.starlift("dlq", "discard", "ingestion", "--reason", "to have a journal")
            await self._messages(MESSAGES)
            await self._document()
            while time.monotonic() < end:
                await self._messages(MANY_MESSAGES)
                for _ in range(4):
                    await self._document()
            await self._load()
            await self._equal()

    async def _messages(self, count: int) -> None:
        """Send rubbish to every queue beside an innocent run, and check the dead letters."""
        good = await self._good()
        sent = Counter([body for _ in range(count) if (body := await self._send(*self._rubbish(good)))])
        await self._load()
        await self._stand.until_idle()
        listed = await self._stand.starlift("dlq", "list", "--json")
        groups = [group for line in listed.out.splitlines() for group in json.loads(line)["groups"]]
        chosen = self._draw.choice(groups)["letter"]
        for words in [("dlq", "show", chosen), *self._draw.sample(DEAD_LETTER_LOOKS, 1)]:
            await self._stand.starlift(*words)
        letters = await self._stand.dead_letters()
        found = Counter(letter.body for letter in letters)
        assert found == sent, [(count, text[:300]) for text, count in ((sent - found) + (found - sent)).items()]
        for letter in letters:
            record = read_failure(letter.attributes.get(FAILURE_ATTRIBUTE, ""))
            assert record is not None, (letter.body[:300], letter.attributes)
            assert record.message, letter.body[:300]
        self.happened["messages"] += sent.total()

    async def _good(self) -> dict[str, str]:
        """An ordinary message of each service."""
        manifests = await self._system.store.manifests_after(0)
        batch = self._draw.choice([batch for manifest in manifests for batch in manifest.batches])
        outlet = FakeQueue("outlet")
        objects, processed = self._system.objects, self._system.settings.processed_bucket
        await remodelling.handle(batch, remodelling.Dependencies(objects, outlet, self._system.contract, processed))
        command = IngestSource(**opening("tests"), data=IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR))
        return {"ingestion": encode(command), "remodelling": encode(batch), "loading": outlet.bodies[0]}

    def _rubbish(self, good: Mapping[str, str]) -> tuple[str, str]:
        """The service and the message."""
        while True:
            service, base = self._draw.choice(list(good)), self._draw.choice(list(good))
            make = self._draw.choice(rubbish.BODIES)
            body = make(self._draw, good[base])
            if make is rubbish.with_broken_reference or rubbish.is_not_a_message(body):
                return service, body

    async def _send(self, service: str, body: str) -> str | None:
        """Return what was sent, or None if SQS itself refuses it."""
        made = rubbish.attributes(self._draw, MESSAGE_BYTES_MAXIMUM - len(body.encode()))
        try:
            await self._stand.clients.control.send_message(
                QueueUrl=self._stand.urls[service], MessageBody=body, MessageAttributes=made
            )
        except ClientError:
            self.happened["refused by SQS"] += 1
            return None
        return body

    async def _document(self) -> None:
        """Damage one stored document, run commands, and heal it as they advise, or put it back if none has read it."""
        bucket, key = self._draw.choice(await self._documents())
        objects = self._system.objects
        found = await objects.read(bucket, key)
        assert found is not None
        damaged = found.body
        while damaged == found.body:
            damaged = rubbish.garbage(self._draw, found.body)
        await objects.put(bucket, key, damaged)
        looks = [("status",), *self._draw.sample(LOOKS, 2)]
        if key.startswith("dead-letters/"):
            operation = key.split("/")[2].removesuffix(".json")
            looks = [("dlq", "audit"), ("dlq", "audit", operation), ("dlq", "discard", "ingestion", "--reason", "x")]
        answers = [await self._stand.starlift(*words) for words in looks]
        await self._stand.until_idle()
        complaints = [(answer, match) for answer in answers for match in DAMAGED.finditer(answer.out + answer.err)]
        for answer, match in complaints:
            assert (match["place"], answer.code > 0) == (f"{bucket}/{key}", True), answer
        if complaints:
            await self._heal(bucket, key, found.body, complaints[0][1]["remedy"])
        else:
            await objects.put(bucket, key, found.body)
        self.happened["documents, read and healed" if complaints else "documents, not read"] += 1
        await self._load()
        await self._stand.dead_letters()
        await self._stand.until_idle()
        await self._equal()  # first: a status reports a proof that failed until another one is made
        for words in {answer.words for answer, _ in complaints}:
            answer = await self._stand.starlift(*words)
            assert DAMAGED.search(answer.out + answer.err) is None, answer

    async def _documents(self) -> list[tuple[str, str]]:
        """Bucket and key of a document to damage, each kind with equal probability."""
        landing, processed = self._system.settings.landing_bucket, self._system.settings.processed_bucket
        manifests = (await self._system.objects.keys(landing, SourceKeys(SOURCE).manifests))[-1:]
        about_letters = await self._system.objects.keys(landing, "dead-letters/")
        refused = await self._system.objects.keys(processed, SourceKeys(SOURCE).quarantine)
        kinds = [[SourceKeys(SOURCE).state], manifests, [SourceKeys(SOURCE).last_proof], about_letters]
        return [*((landing, self._draw.choice(keys)) for keys in kinds), (processed, self._draw.choice(refused))]

    async def _heal(self, bucket: str, key: str, former: bytes, remedy: str) -> None:
        """Follow the advice of an error message, as a person would."""
        self.happened[remedy] += 1
        if remedy.split("; ")[1].startswith("restore") and self._draw.random() < HALF:
            await self._system.objects.put(bucket, key, former)
            return
        if "delete it" in remedy:
            await self._stand.clients.s3.delete_object(Bucket=bucket, Key=key)
        if "`starlift ingest --full`" in remedy:
            await self._load(Mode.FULL)
        if "`starlift verify`" in remedy:
            await self._equal()

    async def _load(self, mode: Mode = Mode.CHANGES) -> None:
        """Make innocent changes at the source, and load them with a run."""
        staff, name = self._draw.randrange(1, 21), f"{self._draw.random()}"
        await self._application.execute("UPDATE staff SET first_name = $1 WHERE staff_id = $2", name, staff)
        await self._application.execute("UPDATE payment SET paid = NOT paid WHERE payment_id = $1", staff)
        await wait_until_loaded(self._system, await request_run(self._system, mode), limit=HANG)
        self.happened["runs"] += 1

    async def _equal(self) -> None:
        answer = await self._stand.starlift("verify", "--settle", "1")
        assert (answer.code, "EQUAL" in answer.out) == (0, True), answer


@contextmanager
def servers(directory: Path) -> Iterator[tuple[str, str, str, str]]:
    """A LocalStack and a PostgreSQL: where AWS is, and the URLs of the reader, the loader and the application."""
    cluster = TestCluster("postgres", directory / "postgres")
    (directory / "localstack").mkdir()
    localstack = start_localstack(directory / "localstack", port=free_port(), region=REGION)
    try:
        cluster.start(free_port())
        source, warehouse = cluster.create_database(), cluster.create_warehouse()
        urls = cluster.url(source, READER), cluster.url(warehouse, LOADER), cluster.url(source, SOURCE_OWNER)
        yield (localstack.endpoint_url, *urls)
    finally:
        localstack.stop()
        cluster.stop()
        remove_place(directory / "postgres")


def aws(endpoint_url: str) -> dict[str, str]:
    """The environment in which clients of ours and commands find a LocalStack."""
    return {"AWS_ENDPOINT_URL": endpoint_url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


async def fuzz(reader: str, loader: str, owner: str, *, seed: int, lasting: timedelta) -> Counter[str]:
    """Play on the databases at these URLs; return counts of what happened. Raises: AssertionError if anything forbidden did."""
    application = await connect(owner)
    try:
        await create(application)
        async with open_stand(reader, loader) as stand:
            fuzzer = Fuzzer(stand, application, seed)
            await fuzzer.play(lasting)
            return fuzzer.happened + stand.commands
    finally:
        await application.close()


def main() -> int:
    """Return exit code 0 if nothing forbidden happened. Raises: AssertionError otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="starlift-fuzz-") as directory, servers(Path(directory)) as places:
        endpoint_url, *urls = places
        os.environ.update(aws(endpoint_url))
        happened = asyncio.run(fuzz(*urls, seed=arguments.seed, lasting=timedelta(minutes=arguments.minutes)))
    print(json.dumps({"seed": arguments.seed, "minutes": arguments.minutes, "happened": happened}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
