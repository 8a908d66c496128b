-- The foreign keys of one column that tables $2 of schema $1 have to tables of the same schema.
SELECT o.conname AS name, c.relname AS "table", a.attname AS "column", r.relname AS "references"
FROM pg_constraint AS o
JOIN pg_class AS c ON c.oid = o.conrelid
JOIN pg_class AS r ON r.oid = o.confrelid AND r.relnamespace = c.relnamespace
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = o.conkey[1]
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[]) AND o.contype = 'f' AND cardinality(o.conkey) = 1
ORDER BY o.conname
