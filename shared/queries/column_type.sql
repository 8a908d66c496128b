CROSS JOIN LATERAL (  -- the type of the column pg_attribute AS a: of a domain, its base type. `described` has the fields of shared.source_types.SourceType
    WITH RECURSIVE made_of AS (
        SELECT a.atttypid AS type, a.atttypmod AS typmod, 0 AS depth
        UNION ALL
        SELECT d.typbasetype, d.typtypmod, depth + 1 FROM made_of JOIN pg_type AS d ON d.oid = made_of.type WHERE d.typtype = 'd'
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
    FROM made_of
    JOIN pg_type AS t ON t.oid = made_of.type
    ORDER BY depth DESC LIMIT 1
) AS column_type
