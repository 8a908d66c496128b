"""What loading asks ingestion: whether the source still has certain rows (docs/decisions/0015-deletes-by-look-up.md)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from contracts.key_hashes import TableHashes
from contracts.tables import RemodelledTable
from shared.envelope import message_id
from shared.source_keys import Key

QUESTION_BYTES_MAXIMUM = 256 * 1024  # of keys as JSON: the answer names as many, and SQS takes a MiB with all attributes
WITHOUT_SURPLUS_MAXIMUM = 100_000  # keys of one comparison, from buckets in which the star does not have more than the source


@dataclass(frozen=True, slots=True)
class Question:
    """Keys of one warehouse table whose rows the source may have deleted."""

    id: UUID  # derived from what led to the question: asked again, it has the same id
    table: RemodelledTable
    run: int  # of the comparison, or of the images that came late
    keys: tuple[Key, ...]
    believe_empty: bool = False


Ask = Callable[[Question], Awaitable[None]]  # sends a question to ingestion


async def questions(
    table: RemodelledTable, run: int, subject: UUID, keys: AsyncIterator[Key], *, believe_empty: bool = False
) -> AsyncIterator[Question]:
    """Cut keys into questions about `subject`, the batch that led to them. Holds the keys of one question in memory."""
    number, size, part = 0, 0, list[Key]()

    def question() -> Question:
        return Question(message_id(subject, f"question/{table.name}/{number}"), table, run, tuple(part), believe_empty)

    async for key in keys:
        key_bytes = len(json.dumps(key, ensure_ascii=False).encode()) + 1
        if part and size + key_bytes > QUESTION_BYTES_MAXIMUM:
            yield question()
            number, size, part = number + 1, 0, []
        size += key_bytes
        part.append(key)
    if part:
        yield question()


def buckets_in_question(theirs: TableHashes, mine: Iterable[tuple[int, int, int]], run: int) -> dict[int, int | None]:
    """The buckets whose keys are in question; with the hash of the only one, where the star has one key more.

    `mine` are the bucket, count and sum of each bucket of the star that has a key. Where the star does not have more keys than
    the source, rows of a batch that is not loaded, or in quarantine, are the likely reason, and only some of the buckets are
    returned: others each time, since `run` chooses the first.
    """
    held = {bucket: (count, total) for bucket, count, total in mine}
    surplus, others = dict[int, int | None](), list[int]()
    for bucket, (their_count, their_sum) in enumerate(zip(theirs.counts, theirs.sums, strict=True)):
        count, total = held.get(bucket, (0, 0))
        if count > their_count:
            surplus[bucket] = total - their_sum if count == their_count + 1 else None
        elif count and (count, total) != (their_count, their_sum):
            others.append(bucket)
    first, keys = run % max(1, len(others)), 0
    for bucket in others[first:] + others[:first]:
        keys += held[bucket][0]
        if keys > WITHOUT_SURPLUS_MAXIMUM and keys > held[bucket][0]:
            break
        surplus[bucket] = None
    return surplus
