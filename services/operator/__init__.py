"""The `starlift` command."""
