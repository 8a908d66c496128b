-- The unique indexes of the tables $2 in schema $1; ON CONFLICT can use those that are arbiters.
SELECT
    c.relname AS "table",
    x.relname AS name,
    ARRAY(
        SELECT a.attname::text
        FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) AS k (attnum)
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
    ) AS columns,
    i.indisprimary AS is_primary,
    EXISTS (SELECT FROM pg_constraint AS o WHERE o.conindid = x.oid AND o.contype IN ('p', 'u')) AS is_constraint,
    i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AS is_arbiter
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indrelid
JOIN pg_class AS x ON x.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[]) AND i.indisunique
ORDER BY c.relname, x.relname
