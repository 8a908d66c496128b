-- Objects of others that keep a column of the relations $2 in schema $1 from changing its type, or a view among them from
-- being dropped. The star's own views $3 are left out.
WITH star AS (
    SELECT c.oid, c.relname, c.relkind, c.reltype, t.typarray
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_type AS t ON t.oid = c.reltype
    WHERE n.nspname = $1 AND c.relname = ANY ($2::text[])
),
dependency AS (
    SELECT s.oid, s.relname, s.relkind, d.refobjsubid, d.classid, d.objid, d.objsubid, d.deptype, false AS is_of_row_type
    FROM star AS s
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid
    UNION ALL
    SELECT s.oid, s.relname, s.relkind, 0, d.classid, d.objid, d.objsubid, d.deptype, true
    FROM star AS s
    JOIN pg_depend AS d ON d.refclassid = 'pg_type'::regclass AND d.refobjid IN (s.reltype, s.typarray)
)
SELECT DISTINCT
    d.relname AS relation,
    a.attname AS column,
    CASE
        WHEN r.oid IS NOT NULL THEN pg_describe_object('pg_class'::regclass, r.ev_class, 0)
        ELSE pg_describe_object(d.classid, d.objid, d.objsubid)
    END AS name
FROM dependency AS d
LEFT JOIN pg_attribute AS a ON a.attrelid = d.oid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_trigger AS g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
LEFT JOIN pg_class AS v ON v.oid = r.ev_class
WHERE
    coalesce(NOT (v.relname = ANY ($3::text[]) AND v.oid IN (SELECT s.oid FROM star AS s)), true)
    AND NOT coalesce(g.tgisinternal, false)
    AND CASE
        WHEN d.relkind = 'v' THEN d.deptype IN ('n', 'a')
        WHEN d.is_of_row_type THEN d.classid = 'pg_class'::regclass AND d.objsubid > 0  -- a column of the table's row type
        ELSE d.refobjsubid > 0 AND d.classid IN (
            'pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass,
            'pg_publication_rel'::regclass
        )
    END
ORDER BY 1, 2, 3
