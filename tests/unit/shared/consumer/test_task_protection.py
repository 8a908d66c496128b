from __future__ import annotations

from datetime import timedelta

import pytest
from aiohttp import web

from shared.consumer.task_protection import protection
from tests.fixtures.limits import HANG
from tests.unit.shared.consumer.scene import until


async def test_the_task_is_protected_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.consumer.task_protection._TURN", timedelta(milliseconds=10))
    refused = {"failure": {"Reason": "DEPLOYMENT_BLOCKED"}}  # ECS says so with HTTP 200
    answers: list[tuple[int, object]] = [(500, {}), (200, refused), (200, {"protection": {}})]
    asked: list[dict[str, object]] = []
    working = True

    async def state(request: web.Request) -> web.Response:
        asked.append(await request.json())
        status, body = answers[min(len(asked), len(answers)) - 1]
        return web.json_response(body, status=status)

    application = web.Application()
    application.router.add_put("/task-protection/v1/state", state)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with protection(f"http://127.0.0.1:{runner.addresses[0][1]}", lambda: working):
            await until(lambda: len(asked) == len(answers), within=HANG)
            working = False
            await until(lambda: len(asked) == len(answers) + 1, within=HANG)
    finally:
        await runner.cleanup()
    assert asked == [{"ProtectionEnabled": True, "ExpiresInMinutes": 20}] * len(answers) + [{"ProtectionEnabled": False}]
