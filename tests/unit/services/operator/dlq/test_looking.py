"""Reading dead letters without changing them: groups, batches loaded since, the plan of a replay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from contracts.messages import encode
from services.operator.dlq.filters import Filter
from services.operator.dlq.looking import described, find, plan, survey
from shared.errors import DependencyDownError
from shared.testing import throttled
from tests.unit.services.operator.dlq.scene import ALL, SERVICE, DeadScene, put_dead
from tests.unit.services.operator.scene import LANDING, ingested

pytestmark = pytest.mark.virtual_clock


async def test_letters_are_grouped_by_fingerprint_and_handed_back() -> None:
    scene = DeadScene()
    first, *_ = scene.add(3)
    scene.add(2, error_type="KeyError", fingerprint="f" * 16, message="unexpected KeyError")
    put_dead(scene.dead, "{")
    scene.ledger.load(ingested(1, 0), ingested(1, 2))
    pile = await survey(scene.system, SERVICE)
    assert (pile.service, pile.letters, pile.in_hand_elsewhere) == (SERVICE, 6, 0)
    assert [(group.error_type, group.count, group.unsendable, group.loaded) for group in pile.groups] == [
        ("SourceMismatchError", 4, 1, 2),
        ("KeyError", 2, 0, 1),
    ]
    assert (pile.groups[0].letter, pile.groups[0].problem) == (first, None)
    assert scene.hidden() == []


async def test_two_causes_of_one_type_at_one_place_are_two_groups_even_of_an_older_build() -> None:
    scene = DeadScene()
    for message in ("table 'staff' lacks column 'email'", "table 'x' lacks column 'y'", "table 'staff' is not in the contract"):
        scene.add(1, error_type="PermanentError", message=message, fingerprint_version=1)
    pile = await survey(scene.system, SERVICE)
    assert [group.count for group in pile.groups] == [2, 1]
    chosen = Filter(fingerprint=pile.groups[1].fingerprint)
    assert [one.run for one in (await plan(scene.system, SERVICE, chosen)).decisions] == [1]


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_warehouse_outage_only_hides_which_letters_were_loaded_since(*, is_silent: bool) -> None:
    scene = DeadScene()
    scene.add(1)

    @asynccontextmanager
    async def down(**_options: object) -> AsyncIterator[None]:
        await asyncio.sleep(3600 * is_silent)
        raise DependencyDownError("warehouse", "away")
        yield

    scene.ledger.transaction = down  # type: ignore[method-assign,assignment]
    (group,) = (await survey(scene.system, SERVICE)).groups
    assert (group.count, group.loaded) == (1, None)
    (letter,) = await find(scene.system, group.letter, 5)
    assert (await described(scene.system, letter)).loaded is None
    assert asyncio.get_running_loop().time() < 60


async def test_a_letter_shows_whether_its_batch_was_loaded_since() -> None:
    scene = DeadScene()
    ids = scene.add(2)
    scene.ledger.load(ingested(1, 1))
    found = [await described(scene.system, letter) for one in ids for letter in await find(scene.system, one, 1)]
    assert [one.loaded for one in found] == [False, True]


async def test_the_advice_for_a_broken_object_needs_no_older_versions_of_it() -> None:
    scene = DeadScene()
    body = json.loads(encode(ingested(1)))
    ref = {"bucket": LANDING, "key": "k", "byte_count": 1, "row_count": 1, "sha256": "0" * 64}
    extract = {"table": "staff", "role": "base", "object": ref}
    body["data"]["extracts"] = [extract, extract, {**extract, "object": {**ref, "bucket": "nowhere"}}]
    (letter,) = put_dead(scene.dead, json.dumps(body))
    (found,) = await find(scene.system, letter, 1)
    gone, nowhere = [one.problem or "" for one in (await described(scene.system, found)).objects]
    assert gone.startswith("a message refers to 'landing/k', which does not exist; restore it and replay the dead letters; ")
    assert gone.endswith("`starlift resend` has remodelled rows written again, `starlift ingest --full` extracts")
    assert nowhere.startswith("'nowhere' does not exist")
    scene.objects.faults.add("get", throttled())  # which hides neither the letter nor the other object
    assert [one.problem for one in (await described(scene.system, found)).objects] == [str(throttled()), nowhere]


async def test_a_plan_changes_nothing_and_makes_the_same_decisions_as_the_replay() -> None:
    scene = DeadScene()
    scene.add(3)
    scene.add(1, replays=5)
    put_dead(scene.dead, "{")
    planned = await plan(scene.system, SERVICE, ALL)
    assert scene.hidden() == []
    assert (scene.alive.sent, scene.objects.buckets[LANDING]) == ([], {})
    ended = await scene.replay()
    assert ended.outcomes is not None
    assert {(one.because or "replayed", one.letter) for one in planned.decisions} == {
        (outcome, letter) for outcome, letters in ended.outcomes.items() for letter in letters
    }


async def test_a_reached_limit_ends_the_look_and_misses_nothing() -> None:
    scene = DeadScene()
    scene.add(3)
    await scene.dead.receive(2, wait=timedelta(0), visibility=timedelta(hours=1))
    assert (await plan(scene.system, SERVICE, ALL)).in_hand_elsewhere == 2
    assert (await plan(scene.system, SERVICE, ALL, limit=1)).in_hand_elsewhere == 0
