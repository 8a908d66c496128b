"""What Starlift keeps in the warehouse in addition to the business columns: its own schema, technical columns and views.

Statements that read the tables of the schema are in shared/ledger.py, statements that write them in services/loading.
"""

from __future__ import annotations

import hashlib

OWN_SCHEMA = "starlift"  # of a star whose contract names no other; see Contract.own
LEDGER = "starlift.ledger"
APPLIED_CONTRACT = "starlift.contract"
TOMBSTONE = "starlift.tombstone"
COMPARISON = "starlift.key_comparison"
QUESTION = "starlift.question"
BULK_LOAD = "starlift.bulk_load"
BULK_LEDGER = "starlift.bulk_ledger"
OWN_TABLES = (LEDGER, APPLIED_CONTRACT, TOMBSTONE, COMPARISON, QUESTION, BULK_LOAD, BULK_LEDGER)

# An advisory lock: loads share it; a schema change, tombstones, the begin of a key comparison, and the begin and the end of a
# bulk load hold it alone. Without it an ALTER TABLE, which locks a fact and then its dimension, and a load, which goes the
# other way, run into a deadlock.
STAR_LOCK = 0x57A2_11F7
# Another one: of several loaders that find keys to compare, one does. Loads don't take it.
COMPARISON_LOCK = 0x57A2_11F8
# Another one: of several proofs of the whole star, one runs.
PROOF_LOCK = 0x57A2_11F9

CREATE_OWN_TABLES = """
-- One row per loaded batch, written in the transaction that merged the batch.
CREATE TABLE IF NOT EXISTS starlift.ledger (
    batch_id uuid PRIMARY KEY,
    source_name text NOT NULL,
    run bigint NOT NULL,
    batch_index integer NOT NULL,
    event jsonb NOT NULL,               -- a BatchLoaded
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
    source_name text NOT NULL,
    run bigint NOT NULL,                -- the run whose hashes are compared
    previous bigint,                    -- the last run that completed before it; NULL: unknown
    found_at timestamptz NOT NULL,      -- the run's snapshot, by the source's clock
    hashes bytea,                       -- gzipped TableHashes, until the comparison has ended
    believe_empty boolean NOT NULL DEFAULT false,  -- of the hashes; questions about late images repeat it
    begun_at timestamptz,               -- NULL while batches of this run or an earlier one are awaited
    ended_at timestamptz,               -- when every question of this comparison was asked
    -- If too many keys are in buckets that lack keys, one comparison asks about a part of these buckets, and the next one goes
    -- on at this place (services/loading/questions.py). 0: the rotation is over.
    next_bucket integer NOT NULL DEFAULT 0,
    since bigint                        -- the run whose comparison began the rotation; NULL: this one
);

-- The questions to ingestion about the rows of a table, since its last comparison began.
CREATE TABLE IF NOT EXISTS starlift.question (
    id uuid PRIMARY KEY,                -- of the command LookUpKeys
    table_name text,                    -- NULL: the answer was loaded before whoever asked has committed
    run bigint,                         -- of the comparison; for an image that came late, of the one that it came too late for
    key_count integer,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    answered_by bigint                  -- the run that answered; NULL: none has
);

-- The first load, while its rows are copied into tables without keys (services/loading/bulk_load.py): one row, otherwise none.
CREATE TABLE IF NOT EXISTS starlift.bulk_load (
    run bigint PRIMARY KEY,
    source_name text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The ledger's row of the last batch of that run. It moves to the ledger when the bulk load ends; before that the run is
-- incomplete for every reader.
CREATE TABLE IF NOT EXISTS starlift.bulk_ledger (LIKE starlift.ledger INCLUDING ALL);

-- A comparison waits for runs that have loaded a batch in the last minutes.
CREATE INDEX IF NOT EXISTS ledger_loaded_at ON starlift.ledger (loaded_at);
"""

# Earlier versions compared lists of all keys, and kept the last list of each table here. They had found all that was gone by
# then, so each is a comparison that has ended. A loader of such a version that still runs creates the table again when it needs
# it; the next loader of this version that starts takes it over again.
KEY_LISTS = "starlift.comparison"
TAKE_OVER_KEY_LISTS = (
    """
    INSERT INTO starlift.key_comparison AS c (table_name, source_name, run, found_at, begun_at, ended_at)
    SELECT old.table_name, l.source_name, old.run, old.found_at, clock_timestamp(), clock_timestamp()
    FROM starlift.comparison AS old CROSS JOIN (SELECT source_name FROM starlift.ledger LIMIT 1) AS l
    ON CONFLICT (table_name) DO UPDATE SET
        source_name = excluded.source_name, run = excluded.run, found_at = excluded.found_at, hashes = NULL,
        believe_empty = false, begun_at = excluded.begun_at, ended_at = excluded.ended_at, next_bucket = 0, since = NULL
    WHERE excluded.run > c.run
    """,
    "DROP TABLE starlift.comparison",
)

# An earlier version did not record when a rotation began. One that was under way has an unknown begin, and counts for no run.
# $1 is the name of the table.
HAS_SINCE = """
SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'since' AND NOT attisdropped)
"""
ADD_SINCE = (
    "ALTER TABLE starlift.key_comparison ADD COLUMN since bigint",
    "UPDATE starlift.key_comparison SET since = 0 WHERE next_bucket <> 0",
)


def own_statement(schema: str, text: str) -> str:
    """A statement about Starlift's own tables, or a name of one, for the star that has them in `schema`.

    `text` is one of this product's constants: in a text that contains names of others, something else may look like the schema.
    It names no table in a comment or in quotes, which a name with a line break or a quote would end.
    """
    if schema == OWN_SCHEMA:
        return text
    name = '"' + schema.replace('"', '""') + '"'
    return text.replace(f"{OWN_SCHEMA}.", f"{name}.")


def own_lock(schema: str, lock: int) -> int:
    """The number of an advisory lock of the star that has its own tables in `schema`: stars of one database share none."""
    return lock if schema == OWN_SCHEMA else lock | int.from_bytes(hashlib.sha256(schema.encode()).digest()[:4]) >> 1 << 32


# Technical columns stand after the business columns of every table of the star.
RUN = "_run"
BATCH_ID = "_batch_id"
LOADED_AT = "_loaded_at"
DELETED_AT = "_deleted_at"
TECHNICAL_COLUMNS = {
    # The run whose snapshot the row shows; 0: an inferred member. No default: a row that names no run is not Starlift's.
    RUN: "bigint NOT NULL",
    BATCH_ID: "uuid",  # the batch that wrote the row last; of an inferred member, one that referred to it; NULL: a date
    LOADED_AT: "timestamptz NOT NULL DEFAULT clock_timestamp()",  # the warehouse's clock
    DELETED_AT: "timestamptz",  # the source's clock: the row was gone by then; set on the newest version of a dead row only
}
# After them, only in a table whose rows count by a version column of their data set (services/loading/merge.py).
WHOLE_RUN = "_whole_run"
# The newest whole snapshot at the row's run, by its run; 0: there was none; -1: no image says, so that every image replaces the
# row: an inferred member, or a row from before the data set had a version.
WHOLE_RUN_TYPE = "bigint NOT NULL DEFAULT -1"

# The last column of a table of versions: the source's clock at the snapshot of the row's run.
SEEN_AT = "_seen_at"
HISTORY_COLUMNS = ("version", "valid_from", "valid_to", "is_current")  # of a `…_history` view, after the business columns


def current_name(table: str) -> str:
    """The view of a fact's current rows: the newest version of each business key, without deleted ones."""
    return f"{table}_current"


def as_of_name(table: str) -> str:
    """The view of a fact's current rows with the versions of dimensions that were valid at their time."""
    return f"{table}_as_of"


def as_of_column(reference: str, name: str) -> str:
    """What that view calls the column `name` of a dimension that the fact's column `reference` refers to."""
    return f"{reference}_{name}"


def versions_name(table: str) -> str:
    """The table of what runs have seen of a dimension with history."""
    return f"{table}_versions"


def history_name(table: str) -> str:
    """The view of a dimension's versions and of when each was valid."""
    return f"{table}_history"
