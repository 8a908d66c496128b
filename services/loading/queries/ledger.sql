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
