-- The last statement before the commit: from now on the rows are to be seen.
UPDATE starlift.ledger SET loaded_at = clock_timestamp() WHERE batch_id = $1
