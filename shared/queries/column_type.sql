CROSS JOIN LATERAL (  -- the type of the column pg_attribute AS a: of a domain, its base type. `described` has the fields of shared.source_types.SourceType
    -- OFFSET 0: without it, pg_type is read as a whole for each column, which took most of a small run's time in the source.
    WITH RECURSIVE made_of AS (
        SELECT a.atttypid AS type, a.atttypmod AS typmod, 0 AS depth
        UNION ALL
        SELECT d.typbasetype, d.typtypmod, depth + 1
        FROM made_of
        CROSS JOIN LATERAL (SELECT * FROM pg_type AS t WHERE t.oid = made_of.type OFFSET 0) AS d
        WHERE d.typtype = 'd'
    )
    SELECT
        t.oid,
        jsonb_build_object(
            'name', format_type(made_of.type, made_of.typmod),
            'unbounded', format_type(made_of.type, -1),
            'domain', CASE WHEN made_of.type <> a.atttypid THEN format_type(a.atttypid, -1) END,
            'is_enum', t.typtype = 'e',
            'is_string', t.typcategory = 'S',
            'is_foreign', t.typnamespace <> 'pg_catalog'::regnamespace,
            'loose_collation', (SELECT quote_ident(l.collname) FROM pg_collation AS l WHERE l.oid = a.attcollation AND NOT l.collisdeterministic)
        ) AS described
    FROM (SELECT * FROM made_of ORDER BY depth DESC LIMIT 1) AS made_of
    CROSS JOIN LATERAL (SELECT * FROM pg_type AS t WHERE t.oid = made_of.type OFFSET 0) AS t
) AS column_type
