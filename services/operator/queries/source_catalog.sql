-- One row per table, view or foreign table of the schemas $1 whose name, or schema and name, matches one of the patterns $2 (if there are any) and none of
-- $3; without partitions and what extensions own. Columns, keys and foreign keys are JSON arrays in it.
WITH RECURSIVE chosen AS (
    SELECT c.oid, n.nspname, c.relname, c.relkind
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY ($1::text[])
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND NOT c.relispartition
        AND (cardinality($2::text[]) = 0 OR c.relname ~ ANY ($2::text[]) OR concat(n.nspname, '.', c.relname) ~ ANY ($2::text[]))
        AND NOT (c.relname ~ ANY ($3::text[]) OR concat(n.nspname, '.', c.relname) ~ ANY ($3::text[]))
        AND NOT EXISTS (
            SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e'
        )
),
member AS (
    SELECT oid AS root, oid AS relation FROM chosen
    UNION ALL
    SELECT member.root, i.inhrelid FROM member JOIN pg_inherits AS i ON i.inhparent = member.relation
),
described AS (
    SELECT
        root,
        -- A table that was never analysed has no count: its pages stand for rows of a hundred bytes.
        coalesce(sum(CASE WHEN c.reltuples > 0 THEN c.reltuples ELSE pg_relation_size(relation) / 100 END)
            FILTER (WHERE c.relkind IN ('r', 'm')), 0)::bigint AS rows,
        count(*) FILTER (WHERE c.relkind IN ('r', 'f') AND (c.relispartition OR relation = root)) AS leaves,
        bool_or(relation <> root AND NOT c.relispartition) AS has_heirs,
        bool_or(relation <> root AND c.relkind = 'f') AS has_foreign_tables
    FROM member
    JOIN pg_class AS c ON c.oid = member.relation
    GROUP BY root
),
-- A partitioned table has the foreign keys that all its partitions have, whether they got them from it or each by itself.
foreign_key AS (
    SELECT root, on_columns, namespace, target, target_key
    FROM (
        SELECT
            member.root,
            member.relation,
            (SELECT jsonb_agg(a.attname ORDER BY k.place) FROM unnest(o.conkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute AS a ON a.attrelid = o.conrelid AND a.attnum = k.number) AS on_columns,
            n.nspname AS namespace,
            p.relname AS target,
            (SELECT jsonb_agg(a.attname ORDER BY k.place) FROM unnest(o.confkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute AS a ON a.attrelid = o.confrelid AND a.attnum = k.number) AS target_key
        FROM member
        JOIN pg_constraint AS o ON o.conrelid = member.relation AND o.contype = 'f' AND o.convalidated
        JOIN pg_class AS p ON p.oid = o.confrelid AND NOT p.relispartition
        JOIN pg_namespace AS n ON n.oid = p.relnamespace
    ) AS found
    JOIN described USING (root)
    GROUP BY root, on_columns, namespace, target, target_key, leaves
    HAVING bool_or(relation = root) OR count(DISTINCT relation) = leaves
)
SELECT
    chosen.nspname AS schema,
    c.relname AS name,
    c.relkind::text AS kind,
    obj_description(c.oid, 'pg_class') AS comment,
    described.rows,
    described.has_heirs,
    described.has_foreign_tables,
    (SELECT jsonb_agg(
        jsonb_build_object(
            'name', a.attname,
            'nullable', NOT a.attnotnull,
            'is_readable', has_column_privilege(c.oid, a.attnum, 'SELECT'),
            'labels', (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = column_type.oid),
            'type', column_type.described
        ) ORDER BY a.attnum)
     FROM pg_attribute AS a
     /* column_type.sql */
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)::text AS columns,
    -- Those on NOT NULL columns, the primary key first.
    (SELECT jsonb_agg(k.names ORDER BY i.indisprimary DESC, jsonb_array_length(k.names), k.names)
     FROM pg_index AS i
     CROSS JOIN LATERAL (
        SELECT jsonb_agg(a.attname ORDER BY n.place) AS names, bool_and(a.attnotnull) AS is_complete
        FROM unnest((i.indkey::smallint[])[:i.indnkeyatts - 1]) WITH ORDINALITY AS n (number, place)
        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = n.number
     ) AS k
     WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.is_complete)::text AS keys,
    (SELECT jsonb_agg(
        jsonb_build_object('on', f.on_columns, 'schema', f.namespace, 'table', f.target, 'key', f.target_key)
        ORDER BY f.on_columns, f.target)
     FROM foreign_key AS f WHERE f.root = c.oid)::text AS foreign_keys
FROM chosen
JOIN pg_class AS c ON c.oid = chosen.oid
JOIN described ON described.root = c.oid
ORDER BY c.relname COLLATE "C", chosen.nspname COLLATE "C"
