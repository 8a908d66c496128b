"""The rows in quarantine: which they are, and how to let them try again after the contract was corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from contracts.messages import BatchIngested, encode
from services.operator.naming import table_named
from services.operator.proof.deleted import last_comparisons
from services.operator.proof.quarantine import Entry, open_entries
from services.operator.system import System
from shared.envelope import opening

SOURCE = "starlift/operator"


async def quarantined(system: System, table: str | None = None) -> list[Entry]:
    """The open entries, of one warehouse table or of all, by table and key; those whose row was deleted since left out.

    Raises: ComplaintError; DependencyDownError, PermanentError, TransientError.
    """
    contract = system.contract
    chosen = contract.warehouse_tables if table is None else [table_named(contract, table)]
    still: list[Entry] = []
    async with system.warehouse.transaction(readonly=True) as warehouse:
        entries = await open_entries(system.store, contract, warehouse)
        comparisons = await last_comparisons(system.store, warehouse)
    for one in chosen:
        of_table = entries.get(one.name, {})
        compared = comparisons.run(one)
        older = [key for key, entry in of_table.items() if compared is not None and entry.run < compared]
        gone = set(older) - await comparisons.listed(one, older) if older else set()
        still += [of_table[key] for key in sorted(of_table.keys() - gone)]
    return still


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many `rows` of the quarantine were sent again, in which batches.

    `lost` are those whose batch nobody knows any more: their run did not complete, or the landing bucket has forgotten it.
    """

    rows: int
    batches: list[BatchIngested]
    lost: list[Entry]


async def replay(system: System, entries: Sequence[Entry]) -> Replayed:
    """Send the batches that the entries come from again, as new batches of the same run: they overwrite nothing newer."""
    sent: dict[tuple[int, int], BatchIngested | None] = {}
    lost: list[Entry] = []
    for entry in entries:
        batch = entry.run, entry.index
        if batch not in sent:
            sent[batch] = await _send_again(system, *batch)
        if sent[batch] is None:
            lost.append(entry)
    return Replayed(len(entries) - len(lost), [event for event in sent.values() if event is not None], lost)


async def _send_again(system: System, run: int, index: int) -> BatchIngested | None:
    """All rows of the batch, those that are loaded already too: a batch that is known is never a part of what it was."""
    manifest = await system.store.find_manifest(run)
    former = next((one for one in manifest.batches if one.data.index == index), None) if manifest else None
    if former is None:
        return None
    event = BatchIngested(**opening(SOURCE), data=former.data.model_copy(update={"batch_id": uuid4()}))
    await system.queues["remodelling"].send(encode(event))
    return event
