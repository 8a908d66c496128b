-- Whether the last batch of run $2 of source $1, and every batch before it, are in.
SELECT coalesce(count(DISTINCT batch_index) = max(batch_index) FILTER (WHERE (event -> 'data' ->> 'is_last')::boolean) + 1, false)
FROM starlift.ledger
WHERE source_name = $1 AND run = $2
