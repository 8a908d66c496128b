"""A pooler that silently drops start-up parameters, as PgBouncer does with `ignore_startup_parameters`."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

_SSL_REQUEST = 80877103
_KEPT = {b"user", b"database", b"client_encoding", b"application_name"}


@asynccontextmanager
async def dropping_pooler(port: int) -> AsyncIterator[int]:
    """Yield its port on 127.0.0.1, in front of the server at `port`. Its clients have to leave before the block ends."""
    clients: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.add(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError), closing(writer):
            startup = await _startup_message(reader, writer)
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
            server_writer.write(startup)
            await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        async with asyncio.timeout(60):
            await asyncio.gather(*(client for client in clients if client is not None))


async def _startup_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The client's start-up message without what a pooler does not know."""
    while True:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        body = await reader.readexactly(length - 4)
        if struct.unpack("!i", body[:4])[0] != _SSL_REQUEST:
            break
        writer.write(b"N")
    words = body[4:].rstrip(b"\0").split(b"\0")
    kept = b"".join(name + b"\0" + value + b"\0" for name, value in zip(words[::2], words[1::2], strict=True) if name in _KEPT)
    body = body[:4] + kept + b"\0"
    return struct.pack("!i", len(body) + 4) + body


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
