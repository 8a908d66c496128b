"""The named points at which a service is killed: after each effect, in the order in which effects happen.

Write objects, send message, advance state or commit, delete input: a crash at any of these leaves something done and something
not. `docs/guarantees.md` has the table.
"""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Point(StrEnum):
    """After which effect the process dies."""

    LEASE_TAKEN = "lease taken"  # ingestion has a run number, and nothing read yet
    OBJECT_WRITTEN = "object written"  # some objects of a batch are written, no message is sent
    MESSAGE_SENT = "message sent"  # the next service works on it, the input is still ours
    CHUNK_RECORDED = "chunk recorded"  # a part of a large table is extracted and recorded, its batch not announced
    MANIFEST_WRITTEN = "manifest written"  # the run is complete, its horizon not stored
    STATE_ADVANCED = "state advanced"  # the horizon is stored, the command not deleted
    BULK_LOAD_BEGUN = "bulk load begun"  # the star has no keys and no rows, unless there was nothing to begin
    BULK_KEYS_BUILT = "bulk load's keys built"  # and the foreign keys, unless a batch is missing; the record still stands
    BULK_LOAD_ENDED = "bulk load ended"  # the star is complete, the message is not deleted
    BATCH_COMMITTED = "batch committed"  # the rows are loaded, the message is not deleted
    INPUT_DELETED = "input deleted"  # everything is done


ONCE = (Point.BULK_LOAD_BEGUN, Point.BULK_KEYS_BUILT, Point.BULK_LOAD_ENDED)  # a process passes them only once
POINTS_OF = {
    "ingestion": (
        Point.LEASE_TAKEN,
        Point.OBJECT_WRITTEN,
        Point.MESSAGE_SENT,
        Point.CHUNK_RECORDED,
        Point.MANIFEST_WRITTEN,
        Point.STATE_ADVANCED,
        Point.INPUT_DELETED,
    ),
    "remodelling": (Point.OBJECT_WRITTEN, Point.MESSAGE_SENT, Point.INPUT_DELETED),
    "loading": (
        Point.BULK_LOAD_BEGUN,
        Point.BULK_KEYS_BUILT,
        Point.BULK_LOAD_ENDED,
        Point.BATCH_COMMITTED,
        Point.INPUT_DELETED,
    ),
}
