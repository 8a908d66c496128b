"""What Starlift keeps in the warehouse beside the business columns: its own schema, technical columns and views.

Statements that read the tables of the schema are in shared/ledger.py, statements that write them in services/loading.
"""

from __future__ import annotations

LEDGER = "starlift.ledger"
APPLIED_CONTRACT = "starlift.contract"
TOMBSTONE = "starlift.tombstone"
COMPARISON = "starlift.key_comparison"
QUESTION = "starlift.question"
OWN_TABLES = (LEDGER, APPLIED_CONTRACT, TOMBSTONE, COMPARISON, QUESTION)

# An advisory lock: loads share it; a schema change, tombstones and the begin of a key comparison hold it alone. Without it an
# ALTER TABLE, which locks a fact and then its dimension, and a load, which goes the other way, run into a deadlock.
STAR_LOCK = 0x57A2_11F7

CREATE_OWN_TABLES = """
CREATE SCHEMA IF NOT EXISTS starlift;

-- One row per loaded batch, written in the transaction that merged the batch.
CREATE TABLE IF NOT EXISTS starlift.ledger (
    batch_id uuid PRIMARY KEY,
    source_name text NOT NULL,
    run bigint NOT NULL,
    batch_index integer NOT NULL,
    event jsonb NOT NULL,               -- starlift.batch_loaded
    snapshot_at timestamptz NOT NULL,   -- the source's clock
    loaded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX IF NOT EXISTS ledger_run ON starlift.ledger (source_name, run);

-- The contract that the star follows.
CREATE TABLE IF NOT EXISTS starlift.contract (
    name text PRIMARY KEY,
    fingerprint text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every row that a run looked up at the source and did not find. A row is alive when its highest _run is above its tombstone's.
CREATE TABLE IF NOT EXISTS starlift.tombstone (
    table_name text NOT NULL,
    key jsonb NOT NULL,                 -- the columns of the business key, as an array
    run bigint NOT NULL,                -- the run that looked it up
    found_at timestamptz NOT NULL,      -- the source's clock: the row was gone by then
    PRIMARY KEY (table_name, key)
);

-- The last key comparison of each table. An image of an earlier run that is loaded after it began is asked about as well.
CREATE TABLE IF NOT EXISTS starlift.key_comparison (
    table_name text PRIMARY KEY,
    run bigint NOT NULL,                -- the run whose hashes are compared
    found_at timestamptz NOT NULL,      -- the run's snapshot, by the source's clock
    batch_id uuid,                      -- that brought the hashes; the ids of its questions derive from it
    hashes bytea,                       -- gzipped TableHashes, until the comparison has ended
    begun_at timestamptz,               -- NULL while batches of this run or an earlier one are awaited
    ended_at timestamptz                -- when every question was asked
);

-- The questions to ingestion that are not answered. A row is committed before its question is sent.
CREATE TABLE IF NOT EXISTS starlift.question (
    id uuid PRIMARY KEY,                -- of the command starlift.look_up_keys
    table_name text NOT NULL,
    run bigint NOT NULL,                -- the comparison, or the run of the image that came late
    key_count integer NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Earlier versions compared with lists of all keys.
DO $$
BEGIN
    IF to_regclass('starlift.comparison') IS NOT NULL THEN
        INSERT INTO starlift.key_comparison (table_name, run, found_at, begun_at, ended_at)
        SELECT table_name, run, found_at, clock_timestamp(), clock_timestamp() FROM starlift.comparison
        ON CONFLICT (table_name) DO NOTHING;
        DROP TABLE starlift.comparison;
    END IF;
END
$$;
"""

# Technical columns stand after the business columns of every table of the star.
RUN = "_run"
BATCH_ID = "_batch_id"
LOADED_AT = "_loaded_at"
DELETED_AT = "_deleted_at"
TECHNICAL_COLUMNS = {
    # The run whose snapshot the row shows; 0: an inferred member. No default: a row that names no run is not Starlift's.
    RUN: "bigint NOT NULL",
    BATCH_ID: "uuid",  # the batch that wrote the row last; NULL: an inferred member, or a date of the calendar
    LOADED_AT: "timestamptz NOT NULL DEFAULT clock_timestamp()",  # the warehouse's clock
    DELETED_AT: "timestamptz",  # the source's clock: the row was gone by then; set on the newest version of a dead row only
}

_CURRENT = "_current"


def current_name(table: str) -> str:
    """The view of a fact's current rows: the newest version of each business key, without deleted ones."""
    return f"{table}{_CURRENT}"
