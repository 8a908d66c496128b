-- The foreign keys of schema $1, and whether all rows have been checked against them.
SELECT c.conname AS name, c.convalidated AS is_checked
FROM pg_constraint AS c
JOIN pg_namespace AS n ON n.oid = c.connamespace
WHERE n.nspname = $1 AND c.contype = 'f'
