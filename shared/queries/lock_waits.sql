-- For the session $1 or, if NULL, for every session of Starlift in this database: the sessions that hold the lock it waits for, or
-- have waited longer for it. A prepared transaction has the pid 0. Without the role pg_read_all_stats the query and
-- the state of other roles' sessions are withheld.
SELECT
    w.pid AS waiting,
    w.application_name AS waiting_application,
    b.pid,
    a.usename AS role,
    a.application_name AS application,
    a.state,
    nullif(a.query, '<insufficient privilege>') AS query
FROM pg_stat_activity AS w
CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b (pid)
LEFT JOIN pg_stat_activity AS a ON a.pid = b.pid
WHERE
    w.wait_event_type = 'Lock'
    AND (w.pid = $1 OR ($1::integer IS NULL AND w.datname = current_database() AND w.application_name LIKE 'starlift%'))
ORDER BY w.pid, b.pid
