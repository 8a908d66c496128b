"""What becomes of replayed letters: loaded, dead again, or still on their way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from contracts.messages import BatchIngested, BatchRemodelled, IngestSource, Message, Trigger
from services.operator.dlq.hold import holding
from services.operator.dlq.letters import Letter, read_letter
from services.operator.progress import not_in_ledger
from services.operator.system import System


class Fate(Enum):
    """What has become of a replayed message."""

    ON_ITS_WAY = auto()
    LOADED = auto()
    DEAD_AGAIN = auto()


@dataclass(frozen=True, slots=True)
class Fallen:
    """What is remembered of a dead letter that fell because of our replay."""

    event_id: str | None
    batch_id: str | None
    run: int | None


@dataclass
class Watch:
    """Sees which of the messages that we replay to `service` fall again, there or further down the road.

    No clock tells old letters from new ones: in the service's own queue a letter is ours when its failure record counts our
    replay; in the others when it was not there before and has a batch, or a run, that comes from us.
    """

    system: System
    service: str
    fallen: dict[str, Fallen] = field(default_factory=dict)  # by SQS's id
    _sent: dict[str, int] = field(default_factory=dict)  # replays, ours counted, by id of the message
    _has_commanded: bool = False  # a run
    _batches: set[str] = field(default_factory=set)
    _run: int = 0  # the last that was complete; a later one may be ours
    _known: set[str] = field(default_factory=set)
    _visible: dict[str, int] = field(default_factory=dict)

    async def begin(self) -> None:
        """Remember how things are."""
        for service, queue in self.system.dead_letters.items():
            if service == self.service:
                self._visible[service] = (await queue.depth()).visible
            else:
                await self._look_into(service, lambda letter: self._known.add(letter.id))
        checkpoint = await self.system.store.find_checkpoint()
        self._run = 0 if checkpoint is None else checkpoint.run

    def note_sent(self, letter: Letter) -> None:
        """A letter is on its way."""
        if letter.message is not None:
            self._sent[str(letter.message.id)] = letter.failure.replays + 1
            self._has_commanded |= isinstance(letter.message, IngestSource)
        if isinstance(letter.message, BatchIngested | BatchRemodelled):
            self._batches.add(str(letter.message.data.batch_id))

    async def look(self) -> None:
        """Find out what has fallen."""
        for service in self.system.dead_letters:
            await self._look_into(service, self._note)

    async def _look_into(self, service: str, note: Callable[[Letter], None]) -> None:
        """A count tells whether to look, and only what is seen is believed."""
        queue = self.system.dead_letters[service]
        if (await queue.depth()).visible == self._visible.get(service, 0):
            return
        self._visible[service] = 0
        async with holding(queue) as hold:
            async for delivery in hold.letters():
                self._visible[service] += 1
                note(read_letter(service, delivery))

    def _note(self, letter: Letter) -> None:
        batch = letter.data.get("batch_id")
        fallen = Fallen(letter.event_id, batch if isinstance(batch, str) else None, letter.run)
        if letter.service == self.service:
            replays = self._sent.get(letter.event_id or "")
            is_ours = replays is not None and letter.failure.replays >= replays
        else:
            is_ours = letter.id not in self._known and (fallen.batch_id in self._batches or self._is_of_later_run(fallen))
        if is_ours:
            self.fallen[letter.id] = fallen

    def _is_of_later_run(self, fallen: Fallen) -> bool:
        return self._has_commanded and fallen.run is not None and fallen.run > self._run

    async def fate(self, letter: Letter) -> Fate:
        """What has become of a letter that was sent."""
        message = letter.message
        if message is None or any(self._is_kin(one, message) for one in self.fallen.values()):
            return Fate.DEAD_AGAIN
        return Fate.LOADED if await self._is_loaded(message) else Fate.ON_ITS_WAY

    def _is_kin(self, fallen: Fallen, message: Message) -> bool:
        """Whether a dead letter is the message again, or the same batch or run further down the road."""
        if isinstance(message, BatchIngested | BatchRemodelled) and fallen.batch_id == str(message.data.batch_id):
            return True
        is_of_run = isinstance(message, IngestSource) and self._is_of_later_run(fallen)
        return fallen.event_id == str(message.id) or is_of_run

    async def _is_loaded(self, message: Message) -> bool:
        system = self.system
        match message:
            case BatchIngested() | BatchRemodelled():
                return not await not_in_ledger(system.warehouse, [message.data.batch_id])
            case IngestSource():
                checkpoint = await system.store.find_checkpoint()  # before the manifests: a run writes its own before it
                manifests = await system.store.manifests_after(self._run)
                asked_for = [manifest for manifest in manifests if manifest.requested_by == message.id]
                if asked_for:
                    wanted = [batch.data.batch_id for manifest in asked_for for batch in manifest.batches]
                    return not await not_in_ledger(system.warehouse, wanted)
                # Only of a schedule an empty run leaves no manifest, and a run that began later answers it: ingestion drops it.
                is_scheduled = message.data.trigger is Trigger.SCHEDULE
                return is_scheduled and checkpoint is not None and message.time < checkpoint.started_at
            case _:
                return True  # nothing is loaded because of it
