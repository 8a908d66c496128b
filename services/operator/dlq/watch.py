"""What becomes of replayed letters: loaded, dead again, or still on their way."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from contracts.messages import BatchIngested, BatchRemodelled, IngestSource, Message
from contracts.objects import state_key
from contracts.state import SourceState
from services.operator.dlq.hold import holding
from services.operator.dlq.letters import Letter, read_letter
from services.operator.progress import manifests_after, missing_batches
from services.operator.system import System


class Fate(Enum):
    """What has become of a replayed message."""

    ON_ITS_WAY = auto()
    LOADED = auto()
    DEAD_AGAIN = auto()


@dataclass
class Watch:
    """Sees what happens from now on. `since` is when it began; `deleted` counts, by service, letters that we have removed."""

    system: System
    since: datetime
    completed_run: int = 0
    totals: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)

    async def begin(self) -> None:
        """Remember how things are."""
        self.totals = {service: await self._total(service) for service in self.system.dead_letters}
        self.completed_run = await self._completed_run()

    async def newcomers(self) -> list[Letter]:
        """Dead letters that fell since, in any queue. A count tells where to look, and only what is seen there is believed."""
        found: list[Letter] = []
        for service, queue in self.system.dead_letters.items():
            if await self._total(service) + self.deleted.get(service, 0) <= self.totals[service]:
                continue
            async with holding(queue) as hold:
                letters = [read_letter(service, delivery) async for delivery in hold.letters()]
            found += [letter for letter in letters if letter.failure.last_failed_at >= self.since]
        return found

    async def fate(self, message: Message, newcomers: list[Letter]) -> Fate:
        """What has become of a message that was sent since."""
        if any(_is_kin(letter, message) for letter in newcomers):
            return Fate.DEAD_AGAIN
        return Fate.LOADED if await self._is_loaded(message) else Fate.ON_ITS_WAY

    async def _is_loaded(self, message: Message) -> bool:
        system = self.system
        match message:
            case BatchIngested() | BatchRemodelled():
                return await self._has_batch(message)
            case IngestSource():
                run = await self._completed_run()
                if run <= self.completed_run:
                    return False
                manifests = await manifests_after(
                    system.objects, system.settings.landing_bucket, system.settings.source_name, self.completed_run
                )
                return not any([await missing_batches(system.warehouse, manifest) for manifest in manifests])
            case _:
                return True  # nothing is loaded because of it

    async def _has_batch(self, message: BatchIngested | BatchRemodelled) -> bool:
        async with self.system.warehouse.connection() as connection:
            if await connection.fetchval("SELECT to_regclass('starlift.ledger')") is None:
                return False
            query = "SELECT batch_id FROM starlift.ledger WHERE batch_id = ANY ($1::uuid[])"
            return bool(await connection.fetch(query, [message.data.batch_id]))

    async def _completed_run(self) -> int:
        settings = self.system.settings
        found = await self.system.objects.read(settings.landing_bucket, state_key(settings.source_name))
        checkpoint = None if found is None else SourceState.model_validate_json(found.body).checkpoint
        return 0 if checkpoint is None else checkpoint.run

    async def _total(self, service: str) -> int:
        depth = await self.system.dead_letters[service].depth()
        return depth.visible + depth.in_flight + depth.delayed


def _is_kin(letter: Letter, message: Message) -> bool:
    """Whether a dead letter is the message again, or the same batch further down the road."""
    if letter.event_id == str(message.id):
        return True
    batch = getattr(message.data, "batch_id", None)
    return batch is not None and letter.data.get("batch_id") == str(batch)
