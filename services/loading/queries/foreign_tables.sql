-- Tables among $2 in schema $1 that lack the column every table of ours has.
SELECT c.relname AS name
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1
    AND c.relname = ANY ($2::text[])
    AND NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = '_run' AND NOT a.attisdropped)
ORDER BY c.relname
