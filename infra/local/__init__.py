"""The whole of Starlift on one machine, without Docker: PostgreSQL, LocalStack, and a simulated source."""
