-- What the loader knows of its own work. One row per batch, written in the transaction that merged the batch.
CREATE SCHEMA IF NOT EXISTS starlift;

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

-- The contract that the star was last shaped after.
CREATE TABLE IF NOT EXISTS starlift.contract (
    name text PRIMARY KEY,
    fingerprint text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every row that a key comparison found gone at the source. A row is alive when its highest _run is above its tombstone's.
CREATE TABLE IF NOT EXISTS starlift.tombstone (
    table_name text NOT NULL,
    key jsonb NOT NULL,                 -- the columns of the business key, an array
    run bigint NOT NULL,
    found_at timestamptz NOT NULL,      -- the source's clock: gone by then
    PRIMARY KEY (table_name, key)
);

-- The last key comparison of each table: it is applied again behind a batch of an earlier run that comes after it.
CREATE TABLE IF NOT EXISTS starlift.comparison (
    table_name text PRIMARY KEY,
    run bigint NOT NULL,
    found_at timestamptz NOT NULL,
    keys jsonb NOT NULL                 -- the key list, as the message referred to it
);
