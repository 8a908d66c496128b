-- One row per table or view, of the schemas $1 and the names $2: its columns, its size, and a fingerprint of all that changes rows without a new
-- xmin (a table swapped by rename, a partition attached, a column added with a default or computed anew, an enum label renamed,
-- row security) or changes which columns may be read.
WITH RECURSIVE member AS (
    SELECT c.oid AS root, c.oid AS relation
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN unnest($1::text[], $2::text[]) AS wanted (schema, name) ON wanted.schema = n.nspname AND wanted.name = c.relname
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT member.root, i.inhrelid
    FROM member
    JOIN pg_inherits AS i ON i.inhparent = member.relation
),
described AS (
    SELECT
        root,
        sum(pg_table_size(relation))::bigint AS bytes,
        sum(greatest(c.reltuples, 0))::bigint AS estimated_rows,
        array_agg(concat(c.relnamespace::regnamespace, '.', c.relname) ORDER BY c.oid) FILTER (WHERE c.relkind = 'f') AS foreign_tables,
        array_agg(concat(c.relnamespace::regnamespace, '.', c.relname) ORDER BY c.oid)
            FILTER (WHERE relation <> root AND NOT c.relispartition) AS heirs,
        string_agg(
            concat_ws(
                ' ',
                relation,
                c.relrowsecurity,
                c.relforcerowsecurity,
                -- A role that bypasses row security, or is a member of a role that a policy names, sees more rows.
                CASE WHEN c.relrowsecurity THEN row_security_active(relation) END,
                (SELECT string_agg(
                    concat_ws(
                        ' ',
                        p.oid,
                        p.polroles,
                        p.polqual,
                        (SELECT bool_or(CASE role WHEN 0 THEN true ELSE pg_has_role(role, 'USAGE') END) FROM unnest(p.polroles) AS role)
                    ),
                    ',' ORDER BY p.oid
                ) FROM pg_policy AS p WHERE p.polrelid = relation),
                (SELECT string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attmissingval), ',' ORDER BY a.attnum)
                 FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped),
                (SELECT string_agg(concat_ws(' ', d.adnum, pg_get_expr(d.adbin, d.adrelid)), ',' ORDER BY d.adnum)
                 FROM pg_attrdef AS d JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
                 WHERE d.adrelid = relation AND a.attgenerated <> ''),
                (WITH RECURSIVE held AS (  -- every type inside a value: in domains, arrays, ranges and rows
                    SELECT a.atttypid AS type FROM pg_attribute AS a WHERE a.attrelid = relation AND NOT a.attisdropped
                    UNION
                    SELECT part.type
                    FROM held
                    CROSS JOIN LATERAL (SELECT * FROM pg_type AS t WHERE t.oid = held.type OFFSET 0) AS t
                    CROSS JOIN LATERAL (
                        VALUES (t.typbasetype), (t.typelem), ((SELECT r.rngsubtype FROM pg_range AS r WHERE r.rngtypid = t.oid))
                        UNION ALL
                        SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND NOT a.attisdropped
                    ) AS part (type)
                    WHERE part.type <> 0
                 )
                 SELECT string_agg(concat_ws(' ', e.oid, e.enumlabel), ',' ORDER BY e.oid)
                 FROM held JOIN pg_enum AS e ON e.enumtypid = held.type)
            ),
            ';' ORDER BY relation
        ) AS description
    FROM member
    JOIN pg_class AS c ON c.oid = member.relation
    GROUP BY root
)
SELECT
    (SELECT n.nspname FROM pg_namespace AS n WHERE n.oid = c.relnamespace) AS schema,
    c.relname AS name,
    described.bytes,
    described.estimated_rows,
    described.foreign_tables,
    described.heirs,
    c.relkind::text AS kind,
    -- Not MD5, which a server in FIPS mode refuses.
    encode(sha256(convert_to(concat_ws(
        ' ',
        described.description,
        current_user,
        (SELECT string_agg(a.attnum::text, ',' ORDER BY a.attnum) FROM pg_attribute AS a
         WHERE a.attrelid = c.oid AND NOT a.attisdropped AND has_column_privilege(c.oid, a.attnum, 'SELECT'))
    ), getdatabaseencoding())), 'hex') AS fingerprint,
    coalesce(c.relkind IN ('r', 'p') AND (SELECT has_column_privilege(c.oid, a.attnum, 'SELECT') FROM pg_attribute AS a
     WHERE a.attrelid = c.oid AND a.attname = 'xmin'), false) AS has_row_versions,
    (SELECT array_agg(
        (SELECT CASE WHEN bool_and(a.attnotnull) THEN string_agg(a.attname::text, ',' ORDER BY a.attname) END
         FROM unnest((i.indkey::smallint[])[:i.indnkeyatts - 1]) AS number JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = number)
     ) FROM pg_index AS i
     WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL) AS unique_keys,
    (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute AS a
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS column_names,
    (SELECT array_agg(has_column_privilege(c.oid, a.attnum, 'SELECT') ORDER BY a.attnum) FROM pg_attribute AS a
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS column_is_readable,
    (SELECT array_agg(column_type.described::text ORDER BY a.attnum)
     FROM pg_attribute AS a
     /* column_type.sql */
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS column_types
FROM described
JOIN pg_class AS c ON c.oid = described.root
ORDER BY c.relname
