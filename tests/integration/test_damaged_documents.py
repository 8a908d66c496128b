"""A damaged stored document is reported in one sentence, and following its advice repairs the document."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import asyncpg
import pytest

from contracts.messages import Mode
from contracts.objects import SourceKeys
from contracts.state import SourceState, StoredLease
from services.operator.ingest import resend_missing
from services.operator.local.totesys.fill import fill
from services.operator.proof.verify import keep_verdict, last_record
from services.operator.quarantine import quarantined
from services.operator.status.look import Asking, read_status
from services.operator.system import System
from services.operator.trace.reading import read_life
from shared.stored_documents import DamagedDocumentError
from tests.fixtures.beginnings import begins_with
from tests.fixtures.limits import HANG
from tests.fixtures.pipeline import LANDING, PROCESSED, SOURCE, Pipeline
from tests.unit.services.operator.scene import Scene

Reader = Callable[[], Awaitable[object]]
GARBAGE = [b"", b"\xff\xfe", b"null", b"[]", b'{"run": "\\ud800"}', b'{"run":' + b"[" * 10_000]


async def one_row_refused(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    """A first run in which the star refused one row."""
    await fill(source, orders=20, seed=1)
    await source.execute("UPDATE sales_order SET agreed_payment_date = 'soon' WHERE sales_order_id = 1")
    await pipeline.run(compare_keys=True)


pytestmark = begins_with(one_row_refused)


@pytest.fixture
def system(pipeline: Pipeline) -> System:
    """The system of a command."""
    return replace(
        Scene().system,
        contract=pipeline.contract,
        objects=pipeline.objects,
        source=pipeline.source,
        warehouse=pipeline.warehouse,
    )


async def answered(system: System) -> None:
    """A status in which every part has an answer. Raises: DamagedDocumentError with the reason of a part that has none."""
    for reason in (await read_status(system, Asking(HANG))).silent.values():
        raise DamagedDocumentError(reason)


def only_key(pipeline: Pipeline, bucket: str, prefix: str) -> str:
    """The key of the last object below a prefix."""
    return max(key for key in pipeline.objects.buckets[bucket] if key.startswith(prefix))


async def require_sentence(reader: Reader, text: str) -> None:
    with pytest.raises(DamagedDocumentError, match=re.escape(text)) as caught:
        await reader()
    assert "\n" not in str(caught.value)


async def damage_and_heal(
    pipeline: Pipeline, bucket: str, key: str, sentence: str, readers: list[Reader], heal: Callable[[], Awaitable[object]]
) -> None:
    """Require the sentence from every reader of every kind of garbage, and none, with an equal proof, after the repair."""
    for garbage in [*GARBAGE, pipeline.objects.buckets[bucket][key].replace(b"1", b'"x"', 1)]:
        pipeline.objects.buckets[bucket][key] = garbage
        for reader in readers:
            await require_sentence(reader, f"'{bucket}/{key}' is not a valid {sentence}")
    await heal()
    for reader in readers:
        await reader()
    assert (await pipeline.verify()).is_equal


async def test_every_damaged_object_is_reported_and_repaired_as_the_error_says(system: System, pipeline: Pipeline) -> None:
    landing, processed = (pipeline.objects.buckets[name] for name in (LANDING, PROCESSED))

    async def delete_and_run(bucket: dict[str, bytes], key: str, mode: Mode) -> None:
        del bucket[key]
        await pipeline.run(mode)

    async def record() -> None:
        await keep_verdict(system, await pipeline.verify(), is_regular=True)

    state = SourceKeys(SOURCE).state
    readers: list[Reader] = [pipeline.ingest, pipeline.progress, lambda: answered(system)]
    sentence = "state of a source; delete it: the next run then reads every row again"
    await damage_and_heal(pipeline, LANDING, state, sentence, readers, partial(delete_and_run, landing, state, Mode.CHANGES))

    manifest = only_key(pipeline, LANDING, SourceKeys(SOURCE).manifests)
    readers = [pipeline.progress, pipeline.verify, lambda: answered(system), lambda: resend_missing(system)]
    sentence = "manifest; delete it, then run `starlift ingest --full`, which reads every row again"
    await damage_and_heal(pipeline, LANDING, manifest, sentence, readers, partial(delete_and_run, landing, manifest, Mode.FULL))

    refused = only_key(pipeline, PROCESSED, SourceKeys(SOURCE).quarantine)
    readers = [pipeline.verify, lambda: quarantined(system), lambda: answered(system)]
    sentence = "list of refused rows; delete it, then run `starlift ingest --full`"
    await damage_and_heal(
        pipeline, PROCESSED, refused, sentence, readers, partial(delete_and_run, processed, refused, Mode.FULL)
    )
    assert len(await quarantined(system)) == 1

    await record()
    readers = [lambda: last_record(system), lambda: answered(system)]
    sentence = "record of a proof; run `starlift verify`, which replaces it"
    await damage_and_heal(pipeline, LANDING, SourceKeys(SOURCE).last_proof, sentence, readers, record)


async def test_every_damaged_ledger_row_is_reported_and_repaired_as_the_error_says(system: System, pipeline: Pipeline) -> None:
    await pipeline.select("UPDATE starlift.ledger SET event = '[]'")
    await require_sentence(lambda: read_life(system, "dim_staff", ["1"]), "is not a valid event; delete that row")
    await pipeline.select("DELETE FROM starlift.ledger")
    for manifest_batch in (await pipeline.progress()).missing:
        await pipeline.load(await pipeline.remodel(manifest_batch))
    assert (await read_life(system, "dim_staff", ["1"])).known
    assert (await pipeline.verify()).is_equal


async def test_a_foreign_object_is_named_and_can_be_moved_away(system: System, pipeline: Pipeline) -> None:
    for bucket, prefix in ((LANDING, SourceKeys(SOURCE).manifests), (PROCESSED, SourceKeys(SOURCE).quarantine)):
        pipeline.objects.buckets[bucket][f"{prefix}note.txt"] = b"mine"
        await require_sentence(lambda: answered(system), f"'{bucket}/{prefix}note.txt' is not a valid name")
        del pipeline.objects.buckets[bucket][f"{prefix}note.txt"]


async def test_an_impossible_lease_blocks_no_run(system: System, pipeline: Pipeline) -> None:
    objects = pipeline.objects.buckets[LANDING]
    state = SourceState.model_validate_json(objects[SourceKeys(SOURCE).state])
    lease = StoredLease(token=uuid4(), until=datetime.max.replace(tzinfo=UTC))
    objects[SourceKeys(SOURCE).state] = state.model_copy(update={"lease": lease}).model_dump_json().encode()
    await pipeline.run()
