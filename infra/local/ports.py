"""TCP ports of this machine, on 127.0.0.1 only."""

from __future__ import annotations

import socket

from infra.local.errors import StackError

LOOPBACK = "127.0.0.1"


def free_port(preferred: int | None = None) -> int:
    """`preferred` when nothing listens there, else one that the system chose. Another process may take it before its use."""
    if preferred is not None and is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def require_free(port: int, purpose: str) -> int:
    """`port`, which a person has asked for. Raises: StackError when it is taken."""
    if not is_free(port):
        raise StackError(f"{purpose} needs port {port} of {LOOPBACK}, which is taken; stop its owner or choose another")
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed connection's remains don't count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
