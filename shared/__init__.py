"""How a service meets the world: settings, queues, objects, Parquet, PostgreSQL, logs."""
