"""Names and texts as parts of a statement: what stands between them and the SQL around them. Pure."""

from __future__ import annotations


def quoted(*names: str) -> str:
    """A possibly qualified identifier, quoted: any name is safe, keywords included."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(text: str) -> str:
    """A text as an SQL literal; backslashes are ordinary (shared.postgres.SESSION_SETTINGS)."""
    return "'" + text.replace("'", "''") + "'"
