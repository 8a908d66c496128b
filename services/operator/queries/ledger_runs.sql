-- One row per run of source $1 from run $2 on. A run is complete when its last batch and every batch before it are there.
SELECT
    run,
    array_agg(batch_id) AS batches,
    -- What was replayed from the quarantine stands in the ledger twice.
    coalesce(count(DISTINCT batch_index) = max(batch_index) FILTER (WHERE (event -> 'data' ->> 'is_last')::boolean) + 1, false) AS is_complete
FROM starlift.ledger
WHERE source_name = $1 AND run >= $2
GROUP BY run
ORDER BY run
