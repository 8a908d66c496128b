"""Ingestion: reads what changed in the source, in one snapshot, into the landing bucket."""
