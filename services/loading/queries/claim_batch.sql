-- The batch's row in the ledger; no row comes back if it is there already. A second loader waits here until the first has ended.
INSERT INTO starlift.ledger (batch_id, source_name, run, batch_index, event, snapshot_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (batch_id) DO NOTHING
RETURNING batch_id
