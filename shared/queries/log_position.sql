-- One row: the position of the log and its timeline. Some managed servers refuse these functions to everyone.
SELECT
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text AS wal_position,
    -- The last checkpoint is of the old timeline for a while after a promotion; the log that is written now is not.
    CASE WHEN NOT pg_is_in_recovery()
         THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END AS timeline
