"""Who holds the locks that Starlift's sessions wait for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files

import asyncpg
import structlog

from shared.errors import DependencyDownError, TransientError
from shared.postgres import Database

_QUERY = (files("shared") / "queries" / "lock_waits.sql").read_text()
_QUERY_LENGTH = 200
_LOOK_EVERY = timedelta(seconds=1)
# Quoted names are kept, comments are removed, and texts and numbers become a question mark, also a text at the end of a query
# that PostgreSQL has truncated.
_PIECE = re.compile(
    r"""(?P<name>"(?:[^"]|"")*(?:"|$))
    | (?P<comment>--[^\n]*|/\*.*?(?:\*/|$))
    | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|$) | '(?:[^']|'')*(?:'|$) | (?<![\w$])\d[\w.]*""",
    re.DOTALL | re.VERBOSE,
)

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class LockWait:
    """The session `waiting` of ours, and the session `pid` that it waits for; 0 is a prepared transaction."""

    waiting: int
    waiting_application: str
    pid: int
    role: str | None
    application: str | None
    state: str | None
    query: str | None

    @property
    def is_for_ours_at_work(self) -> bool:
        """Whether a session of Starlift holds the lock and runs a statement: it either ends, or waits itself and is listed."""
        return (self.application or "").startswith("starlift") and self.state == "active"

    def __str__(self) -> str:
        """The holder of the lock in a few words, without any value of its query."""
        if self.pid == 0:
            return "a prepared transaction (see pg_prepared_xacts)"
        known = (self.role, self.application, self.state, None if self.query is None else without_literals(self.query))
        return f"session {self.pid} ({', '.join(text for text in known if text)})"


async def lock_waits(connection: asyncpg.Connection, pid: int | None = None) -> list[LockWait]:
    """The lock waits of the session `pid` or, without one, of every session of Starlift in the database."""
    return [LockWait(**row) for row in await connection.fetch(_QUERY, pid)]


@asynccontextmanager
async def log_lock_waits(database: Database, connection: asyncpg.Connection, **subject: str) -> AsyncIterator[list[LockWait]]:
    """Log once each session that holds a lock for which the transaction inside waits; yield a list of the last ones seen."""
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    waits: list[LockWait] = []

    async def look() -> None:
        logged: set[int] = set()
        while True:
            await asyncio.sleep(_LOOK_EVERY.total_seconds())
            try:
                async with database.connection() as other:
                    waits[:] = await lock_waits(other, pid) or waits
            except (DependencyDownError, TransientError):  # every connection is busy; an outage shows in the session itself
                continue
            for wait in waits:
                if wait.pid not in logged:
                    logged.add(wait.pid)
                    _log.warning("lock_awaited", holder=str(wait), holder_pid=wait.pid, **subject)

    looking = asyncio.create_task(look())
    try:
        yield waits
    finally:
        looking.cancel()
        await asyncio.wait([looking])


def without_literals(query: str) -> str:
    """The query without its values, cut to 200 characters.

    With standard_conforming_strings off, or in an E'' text, a backslash may hide a quote: the rest of the query is not shown.
    """
    kept, hidden, _ = query.partition("\\")
    if hidden and "'" in kept:
        kept = kept.rpartition("'")[0]
    plain = _PIECE.sub(lambda piece: piece["name"] or (" " if piece["comment"] else "?"), kept)
    text = " ".join(plain.split()) + (" …" if hidden else "")
    return text if len(text) <= _QUERY_LENGTH else f"{text[: _QUERY_LENGTH - 1]}…"
