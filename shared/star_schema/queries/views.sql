-- The views $2 of schema $1, with everything that has to be restored when one is created again.
SELECT
    c.relname AS name,
    pg_get_viewdef(c.oid) AS definition,
    pg_get_userbyid(c.relowner) AS owner,
    c.relowner = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = current_user) AS is_own,
    coalesce(c.reloptions, '{}') AS options,
    obj_description(c.oid, 'pg_class') AS comment,
    (
        SELECT jsonb_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum)
        FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0
    ) AS columns,
    (
        SELECT coalesce(jsonb_object_agg(a.attname, col_description(c.oid, a.attnum)), '{}')
        FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NOT NULL
    ) AS column_comments,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'role', CASE WHEN g.grantee <> 0 THEN pg_get_userbyid(g.grantee) END,
            'privilege', g.privilege_type,
            'column', p.column_name,
            'may_grant', g.is_grantable
        )), '[]')
        FROM (
            SELECT NULL AS column_name, c.relacl AS acl
            UNION ALL
            SELECT a.attname, a.attacl FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0
        ) AS p
        CROSS JOIN aclexplode(p.acl) AS g
        WHERE g.grantee <> c.relowner
    ) AS grants,
    ARRAY(
        SELECT DISTINCT CASE WHEN g.grantee <> 0 THEN pg_get_userbyid(g.grantee)::text END
        FROM pg_default_acl AS d
        CROSS JOIN aclexplode(d.defaclacl) AS g
        WHERE d.defaclobjtype = 'r' AND g.grantee <> d.defaclrole AND d.defaclrole = c.relowner
            AND d.defaclnamespace IN (0, c.relnamespace)
    ) AS granted_by_default
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[]) AND c.relkind = 'v'
