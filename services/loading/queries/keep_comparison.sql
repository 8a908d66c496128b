-- The key comparison of run $2 of table $1, the last one that is known.
INSERT INTO starlift.comparison (table_name, run, found_at, keys)
VALUES ($1, $2, $3, $4)
ON CONFLICT (table_name) DO UPDATE SET run = excluded.run, found_at = excluded.found_at, keys = excluded.keys
