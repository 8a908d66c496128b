-- The foreign keys of schema $1.
SELECT c.conname AS name
FROM pg_constraint AS c
JOIN pg_namespace AS n ON n.oid = c.connamespace
WHERE n.nspname = $1 AND c.contype = 'f'
