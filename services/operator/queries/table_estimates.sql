-- One row per table of $2 that schema $1 has. Reads only the catalog, so it never waits for a lock on a table.
SELECT c.relname AS name, c.reltuples::bigint AS estimate, c.relpages AS pages
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p')
ORDER BY array_position($2::text[], c.relname::text)
