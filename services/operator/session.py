"""A command's time with the system at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.operator.locate import operator_settings
from services.operator.system import System, open_system

Result = TypeVar("Result")


def with_system(work: Callable[[System], Awaitable[Result]]) -> Result:
    """Do `work` on the Starlift that the environment describes, or that runs here."""

    async def opened() -> Result:
        async with open_system(operator_settings()) as system:
            return await work(system)

    return asyncio.run(opened())
