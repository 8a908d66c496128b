-- One row: the horizon of this transaction's snapshot, and what the horizon's meaning depends on. Needs no privilege.
SELECT
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,   -- every transaction below had ended
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid,
    clock_timestamp() AS taken_at,
    (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
    (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline,      -- of the last checkpoint
    (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database_oid,
    (SELECT coalesce(stats_reset::text, '') FROM pg_stat_bgwriter) AS statistics_reset
