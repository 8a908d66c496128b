"""Which of the missing batches are dead letters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from uuid import UUID

from services.operator.dlq.hold import holding
from services.operator.dlq.letters import read_letter
from services.operator.proof.causes import DeadBatch
from services.operator.system import System

LOOKED_THROUGH = 1_000  # letters per service: naming one is not worth receiving a million


async def none_dead(_batches: Collection[UUID]) -> Mapping[UUID, DeadBatch]:
    """Report no dead letters, where they can't be read."""
    return {}


async def find_dead(system: System, batches: Collection[UUID]) -> Mapping[UUID, DeadBatch]:
    """The dead letters of those batches that have one. Letters are returned once seen; those that others hold are not found.

    Raises: DependencyDownError, PermanentError, TransientError.
    """
    found: dict[UUID, DeadBatch] = {}
    for service, queue in system.dead_letters.items():
        if not (await queue.depth()).visible:
            continue
        async with holding(queue) as hold:
            seen = 0
            async for delivery in hold.letters():
                letter = read_letter(service, delivery)
                with suppress(ValueError):  # a body that Starlift did not write
                    batch = UUID(str(letter.data.get("batch_id")))
                    if batch in batches:
                        found[batch] = DeadBatch(service, letter.id)
                seen += 1
                if seen == LOOKED_THROUGH:
                    break
    return found
