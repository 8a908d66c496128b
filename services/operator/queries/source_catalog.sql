-- One row per table, view or foreign table of schema $1 whose name matches one of the patterns $2 (if there are any) and none of
-- $3; without partitions and what extensions own. Columns, keys and foreign keys are JSON arrays in it.
WITH RECURSIVE chosen AS (
    SELECT c.oid, c.relname, c.relkind
    FROM pg_class AS c
    WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = $1)
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND NOT c.relispartition
        AND (cardinality($2::text[]) = 0 OR c.relname ~ ANY ($2::text[]))
        AND NOT c.relname ~ ANY ($3::text[])
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
            'labels', (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid),
            'type', jsonb_build_object(  -- the fields of shared.source_types.SourceType
                'name', format_type(b.type, b.typmod),
                'unbounded', format_type(b.type, -1),
                'domain', CASE WHEN b.type <> a.atttypid THEN format_type(a.atttypid, -1) END,
                'is_enum', t.typtype = 'e',
                'is_string', t.typcategory = 'S',
                'is_foreign', t.typnamespace <> 'pg_catalog'::regnamespace,
                'loose_collation', (SELECT quote_ident(l.collname) FROM pg_collation AS l WHERE l.oid = a.attcollation AND NOT l.collisdeterministic)
            )
        ) ORDER BY a.attnum)
     FROM pg_attribute AS a
     CROSS JOIN LATERAL (
        WITH RECURSIVE made_of AS (
            SELECT a.atttypid AS type, a.atttypmod AS typmod, 0 AS depth
            UNION ALL
            SELECT d.typbasetype, d.typtypmod, depth + 1 FROM made_of JOIN pg_type AS d ON d.oid = made_of.type WHERE d.typtype = 'd'
        )
        SELECT type, typmod FROM made_of ORDER BY depth DESC LIMIT 1
     ) AS b
     JOIN pg_type AS t ON t.oid = b.type
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
ORDER BY c.relname COLLATE "C"
