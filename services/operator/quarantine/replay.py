"""The rows that are in quarantine now, and another try for them after the contract was corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from contracts.messages import BatchIngested, encode
from services.operator.quarantine.entries import Batch, Entry, open_entries
from services.operator.star_keys import table_named
from services.operator.system import System
from shared.envelope import opening
from shared.ledger import last_comparisons

SOURCE = "starlift/operator"


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many `rows` of the quarantine were sent again, and in which batches.

    `lost` are those whose batch is unknown by now: its run did not complete, or its manifest has expired.
    """

    rows: int
    batches: list[BatchIngested]
    lost: list[Entry]


async def quarantined(system: System, table: str | None = None) -> list[Entry]:
    """The open entries of one warehouse table or of all, by table and key, without rows that were deleted at the source since.

    Raises: UsageError; DependencyDownError, PermanentError, TransientError.
    """
    contract = system.contract
    chosen = contract.warehouse_tables if table is None else [table_named(contract, table)]
    async with system.warehouse.transaction(readonly=True) as warehouse:
        entries = await open_entries(system, warehouse)
        comparisons = await last_comparisons(warehouse)
    still: list[Entry] = []
    for name in (one.name for one in chosen):
        of_table = entries.get(name, {})
        gone = set[object]()
        if (comparison := comparisons.get(name)) is not None:
            older = {key for key, entry in of_table.items() if entry.run < comparison.run}
            gone |= older - await comparison.listed(system.objects, older) if older else set()
        still += [of_table[key] for key in sorted(of_table.keys() - gone)]
    return still


async def replay(system: System, entries: Sequence[Entry]) -> Replayed:
    """Send the batches of the entries again, as new batches of the same run: they overwrite nothing newer."""
    sent: dict[Batch, BatchIngested | None] = {}
    lost: list[Entry] = []
    for entry in entries:
        if entry.batch not in sent:
            sent[entry.batch] = await _send_again(system, entry.batch)
        if sent[entry.batch] is None:
            lost.append(entry)
    return Replayed(len(entries) - len(lost), [event for event in sent.values() if event is not None], lost)


async def _send_again(system: System, batch: Batch) -> BatchIngested | None:
    """All rows of the batch, also those that are loaded: a batch of the ledger is never a part of what it was."""
    manifest = await system.store.find_manifest(batch.run)
    former = next((one for one in manifest.batches if one.data.index == batch.index), None) if manifest else None
    if former is None:
        return None
    event = BatchIngested(**opening(SOURCE), data=former.data.model_copy(update={"batch_id": uuid4()}))
    await system.queues["remodelling"].send(encode(event))
    return event
