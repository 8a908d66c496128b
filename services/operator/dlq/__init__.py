"""`starlift dlq`: see, understand, repair and replay dead letters. See docs/decisions/0007."""
