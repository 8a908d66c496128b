-- One row per table of $2 that schema $1 has. Reads the catalog alone: no lock on a table is waited for.
SELECT c.relname AS name, c.reltuples::bigint AS estimate, c.relpages AS pages
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p')
