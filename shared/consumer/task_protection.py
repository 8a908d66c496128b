"""Amazon ECS must not stop a task that works: scale-in then takes an idle one.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
import structlog

_TURN = timedelta(seconds=10)
EXPIRY = timedelta(minutes=20)  # a hung task loses its protection before .github/release.sh gives up waiting
_RENEWAL = EXPIRY / 2
_TIMEOUT = aiohttp.ClientTimeout(total=5)

_log = structlog.stdlib.get_logger()


@asynccontextmanager
async def protection(agent_uri: str | None, is_working: Callable[[], bool]) -> AsyncIterator[None]:
    """Keep the task protected while it works, by the agent at $ECS_AGENT_URI; without an agent do nothing."""
    if agent_uri is None:
        yield
        return
    updating = asyncio.create_task(_keep_up_to_date(agent_uri, is_working))
    try:
        yield
    finally:
        updating.cancel()
        await asyncio.wait([updating])


async def _keep_up_to_date(agent_uri: str, is_working: Callable[[], bool]) -> None:
    """A request that fails or is refused is logged and repeated at the next turn."""
    loop = asyncio.get_running_loop()
    is_protected = False
    asked_at = loop.time()
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        while True:
            wanted = is_working()
            is_old = loop.time() - asked_at >= _RENEWAL.total_seconds()
            if (wanted != is_protected or (wanted and is_old)) and await _set_protection(session, agent_uri, is_enabled=wanted):
                is_protected, asked_at = wanted, loop.time()
            await asyncio.sleep(_TURN.total_seconds())


async def _set_protection(session: aiohttp.ClientSession, agent_uri: str, *, is_enabled: bool) -> bool:
    """Whether it succeeded. A refusal, as while a deployment waits for the task, is HTTP 200 with a `failure` in the body."""
    wanted: dict[str, bool | int] = {"ProtectionEnabled": is_enabled}
    if is_enabled:
        wanted["ExpiresInMinutes"] = int(EXPIRY / timedelta(minutes=1))
    try:
        async with session.put(f"{agent_uri}/task-protection/v1/state", json=wanted) as answer:
            answer.raise_for_status()
            refusal = (await answer.json(content_type=None) or {}).get("failure")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        _log.warning("task_protection_failed", wanted=is_enabled, error_type=type(error).__qualname__)
        return False
    if refusal:
        _log.warning("task_protection_refused", wanted=is_enabled, reason=refusal.get("Reason"))
    return not refusal
