"""What becomes of replayed letters: loaded, dead again, or still on their way. It stops a replay that does harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from contracts.messages import BatchIngested, BatchRemodelled, IngestSource, Message, Trigger
from services.operator.dlq.hold import holding, persistently
from services.operator.dlq.letters import Letter
from services.operator.system import System
from shared.clock import pause
from shared.ledger import loaded_batches

REFILL_MINIMUM = 5  # dead letters that may fall while we replay
REFILL_SHARE = 0.10  # or this part of what was sent
LOOKS_EVERY = timedelta(seconds=2)
CANARY_LIMIT = timedelta(minutes=10)  # five attempts with their backoff take less


class StoppedError(Exception):
    """A safety limit: going on would do harm. Recovery: find out why the letters die again."""


@dataclass
class Watch:
    """Sees which of the messages that we replay to `service` die again, there or in a service further down.

    No clock distinguishes old letters from new ones: in the service's own queue a letter is ours if its failure record counts
    our replay; in the others if it was not there before and has a batch, or a run, that comes from us.
    """

    system: System
    service: str
    canary: int  # letters that are watched alone, before the others follow
    sent: int = 0
    _canaries: list[Message] = field(default_factory=list)
    _fallen: dict[str, Letter] = field(default_factory=dict)  # by SQS's id
    _replays: dict[str, int] = field(default_factory=dict)  # ours counted, by the id of the message
    _has_commanded: bool = False  # whether we have sent a command to run
    _batches: set[UUID] = field(default_factory=set)
    _run: int = 0  # the last one that was complete; a later one may be ours
    _known: set[str] = field(default_factory=set)
    _visible: dict[str, int] = field(default_factory=dict)
    _next_look: float = 0.0

    async def begin(self) -> None:
        """Remember what there is before anything is sent."""
        for service, queue in self.system.dead_letters.items():
            if service == self.service:
                self._visible[service] = (await queue.depth()).visible
            else:
                await self._look_into(service, lambda letter: self._known.add(letter.id))
        checkpoint = await self.system.store.find_checkpoint()
        self._run = 0 if checkpoint is None else checkpoint.run

    def note_sent(self, letters: Iterable[Letter]) -> None:
        """Letters are on their way."""
        for letter in letters:
            if letter.message is None:
                continue
            if self.sent < self.canary:
                self._canaries.append(letter.message)
            self.sent += 1
            self._replays[str(letter.message.id)] = letter.failure.replays + 1
            self._has_commanded |= isinstance(letter.message, IngestSource)
            if letter.batch_id is not None:
                self._batches.add(letter.batch_id)

    async def await_canaries(self) -> None:
        """Return when each canary is loaded. Raises: StoppedError."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while self._canaries:
            await persistently(self._look)
            for message in self._canaries:
                if any(self._is_death_of(message, letter) for letter in self._fallen.values()):
                    raise StoppedError(f"a canary died again (message {message.id}); the other letters stay in the queue")
            self._canaries = await persistently(self._canaries_on_their_way)
            if self._canaries and clock() - began > CANARY_LIMIT.total_seconds():
                limit = f"{CANARY_LIMIT.total_seconds() / 60:g} minutes"
                raise StoppedError(f"{len(self._canaries)} canaries are neither loaded nor dead after {limit}; see `status`")
            if self._canaries:
                await asyncio.sleep(pause(clock() - began).total_seconds())

    async def require_no_refill(self) -> None:
        """Raises: StoppedError when too many of the replayed letters have died again."""
        now = asyncio.get_running_loop().time()
        if now < self._next_look:
            return
        await persistently(self._look)
        self._next_look = now + LOOKS_EVERY.total_seconds()
        fallen = len(self._fallen)
        if fallen > max(REFILL_MINIMUM, REFILL_SHARE * self.sent):
            raise StoppedError(
                f"{fallen} letters died again while {self.sent} were replayed; the other letters stay in the queue"
            )

    async def _look(self) -> None:
        for service in self.system.dead_letters:
            await self._look_into(service, self._note_fallen)

    async def _look_into(self, service: str, note: Callable[[Letter], None]) -> None:
        """A count says whether to look; only what is seen is believed."""
        if (await self.system.dead_letters[service].depth()).visible == self._visible.get(service, 0):
            return
        self._visible[service] = 0
        async with holding(self.system, service) as hold:
            async for letter in hold.letters():
                self._visible[service] += 1
                note(letter)

    def _note_fallen(self, letter: Letter) -> None:
        if letter.service == self.service:
            replays = self._replays.get(letter.event_id or "")
            is_ours = replays is not None and letter.failure.replays >= replays
        else:
            is_ours = letter.id not in self._known and (letter.batch_id in self._batches or self._is_of_later_run(letter))
        if is_ours:
            self._fallen[letter.id] = letter

    def _is_of_later_run(self, letter: Letter) -> bool:
        return self._has_commanded and letter.run is not None and letter.run > self._run

    def _is_death_of(self, message: Message, letter: Letter) -> bool:
        """Whether a letter that has fallen is the message again, or of the same batch, or of its run, further down."""
        if isinstance(message, IngestSource) and self._is_of_later_run(letter):
            return True
        is_of_batch = isinstance(message, BatchIngested | BatchRemodelled) and letter.batch_id == message.data.batch_id
        return is_of_batch or letter.event_id == str(message.id)

    async def _canaries_on_their_way(self) -> list[Message]:
        return [message for message in self._canaries if not await self._is_loaded(message)]

    async def _is_loaded(self, message: Message) -> bool:
        match message:
            case BatchIngested() | BatchRemodelled():
                wanted = {message.data.batch_id}
            case IngestSource():
                checkpoint = await self.system.store.find_checkpoint()  # before the manifests: a run writes its own before it
                manifests = await self.system.store.manifests_after(self._run)
                asked_for = [manifest for manifest in manifests if manifest.requested_by == message.id]
                if not asked_for:
                    # A scheduled run that finds nothing leaves no manifest, and ingestion drops what a later run answers.
                    is_scheduled = message.data.trigger is Trigger.SCHEDULE
                    return is_scheduled and checkpoint is not None and message.time < checkpoint.started_at
                wanted = {batch.data.batch_id for manifest in asked_for for batch in manifest.batches}
            case _:
                return True  # nothing is loaded because of it
        async with self.system.warehouse.transaction(readonly=True) as connection:
            return wanted <= await loaded_batches(connection, self.system.contract, wanted)
