from __future__ import annotations

import asyncio
import gc
from datetime import timedelta

from services.operator.status.look import Asking
from shared.errors import DependencyDownError


async def test_a_part_that_fails_after_its_timeout_causes_no_asyncio_warning() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise DependencyDownError("warehouse", "the connection was closed") from None

    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context["message"]))
    asking = Asking(timedelta(milliseconds=1))
    await asking.answer("progress", fail_when_cancelled())
    assert asking.late == {"progress": "no answer within 0.001 s"}
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []
