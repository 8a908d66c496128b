"""The death of a process, as one test can cause it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it, and no later call of the process has an effect."""


def killing(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Call the method, then die."""

    async def killed(*arguments: Any) -> None:
        await method(*arguments)
        raise KilledError

    return killed
