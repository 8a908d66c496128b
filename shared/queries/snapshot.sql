-- One row: the horizon of this transaction's snapshot, and what the horizon's meaning depends on. Needs no privilege.
SELECT
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,   -- every transaction below had ended
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid,
    clock_timestamp() AS taken_at,
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text AS wal_position,
    (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
    -- The last checkpoint is of the old timeline for a while after a promotion; the log that is written now is not.
    (CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
          ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END) AS timeline,
    (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database_oid,
    (SELECT coalesce(stats_reset::text, '') FROM pg_stat_bgwriter) AS statistics_reset
