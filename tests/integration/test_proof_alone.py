"""Proofs of the whole star, one at a time."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from contracts.warehouse import PROOF_LOCK
from services.operator.errors import OperatorError
from services.operator.proof.verdict import Scope
from services.operator.proof.verify import last_failure, verify_and_keep
from shared.lock_waits import lock_waits
from tests.fixtures.beginnings import begins_with, loaded_totesys
from tests.fixtures.pipeline import Pipeline

pytestmark = begins_with(loaded_totesys(orders=20))


async def test_a_second_proof_waits_if_a_person_asks_for_it_and_ends_if_a_schedule_does(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    system = loaded.system
    async with loaded.warehouse.transaction() as first:
        await first.execute("SELECT pg_advisory_xact_lock($1)", PROOF_LOCK)
        with pytest.raises(OperatorError, match="another proof of this star is under way"):
            await verify_and_keep(system, is_regular=True)
        assert await last_failure(system) is None, "the other proof is the one that counts"
        assert (await verify_and_keep(system, Scope(tables=("dim_staff",)), is_regular=False)).verdict.is_equal
        second = asyncio.create_task(verify_and_keep(system, is_regular=False))
        ended, _ = await asyncio.wait({second}, timeout=1)
        assert not ended
        assert await lock_waits(first) == [], "`status` would call the warehouse unhealthy"
    assert (await second).verdict.is_equal
