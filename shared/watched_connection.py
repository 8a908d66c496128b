"""Ending the wait on a connection that is gone.

In asyncpg 0.32 `copy_records_to_table`, `copy_to_table` and `executemany` wait for room to write on an event that a lost
connection never sets: when the server ends the connection in the middle of a COPY, the call waits forever. A peer that vanishes
without closing the connection (a failover, a NAT entry that expired) goes unnoticed by a statement that waits for its answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import asyncpg
from asyncpg.pool import PoolConnectionProxy

# A statement that notices the loss by itself raises at once, with the server's reason; only a wait that does not is cancelled.
GRACE = timedelta(seconds=1)
# How long a peer may acknowledge nothing. Linux applies the same limit to a peer that acknowledges but stops reading
# (tcp(7), TCP_USER_TIMEOUT), so it has to be longer than a busy server's pauses.
SILENCE_MAXIMUM = timedelta(minutes=2)
_KEEPALIVE_OPTIONS = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}  # seconds, seconds, probes


@asynccontextmanager
async def watched(connection: asyncpg.Connection | PoolConnectionProxy) -> AsyncIterator[None]:
    """End what waits inside when the connection ends.

    Raises: asyncpg.ConnectionDoesNotExistError in place of the wait.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    cancelled_before = task.cancelling() if task is not None else 0
    grace: asyncio.TimerHandle | None = None
    has_ended = is_over = is_cancelled = False

    def end_wait() -> None:
        nonlocal is_cancelled
        is_cancelled = task is not None and task.cancel()

    def start_grace(_connection: object) -> None:
        nonlocal grace, has_ended
        has_ended = True
        if not is_over:
            grace = loop.call_later(GRACE.total_seconds(), end_wait)

    connection.add_termination_listener(start_grace)
    try:
        yield
    except (asyncio.CancelledError, asyncpg.InterfaceError) as error:  # on leaving a transaction, or in a later call
        is_wanted = is_cancelled and task is not None and task.uncancel() <= cancelled_before
        if is_wanted or (has_ended and isinstance(error, asyncpg.InterfaceError)):
            raise asyncpg.ConnectionDoesNotExistError("the server ended the connection in the middle of a call") from error
        raise
    finally:
        is_over = True
        if grace is not None:
            grace.cancel()
        with suppress(asyncpg.InterfaceError):  # the pool has taken back one that has ended
            connection.remove_termination_listener(start_grace)


def limit_silence(connection: asyncpg.Connection) -> None:
    """Let the kernel end a TCP connection whose peer is silent for SILENCE_MAXIMUM."""
    transport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001 (asyncpg has no public way to it)
    plain = transport.get_extra_info("socket")
    if plain is None or plain.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_OPTIONS.items():
        if hasattr(socket, name):  # macOS names some of them differently
            plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = int(SILENCE_MAXIMUM / timedelta(milliseconds=1))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
