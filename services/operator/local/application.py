"""The simulated application behind an embedded source: its data to begin with, and a process that keeps writing."""

from __future__ import annotations

import os
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from infra.local import processes
from infra.local.processes import Child
from infra.local.stack import CHECKOUT
from infra.local.state import neutral_environment
from shared.postgres import Database

SEED = 1


async def ensure_filled(url: str, *, orders: int) -> int:
    """Create and fill the source if it is empty; the number of rows made, 0 where there were some already."""
    from infra.local.totesys.fill import create, fill  # noqa: PLC0415 (with numpy, a quarter of a second for every command)

    async with aclosing(Database("source", SecretStr(url), connections=1)) as database, database.connection() as connection:
        if await connection.fetchval("SELECT to_regclass('sales_order')") is not None:
            return 0
        await connection.execute("SET TIME ZONE 'UTC'")  # as the application's own sessions
        async with connection.transaction():
            await create(connection)
            rows = await fill(connection, orders=orders, seed=SEED)
        await connection.execute("ANALYZE")
        return sum(rows.values())


def start_writing(url: str, *, per_second: float, lasting: timedelta, seed: int, log: Path, cancelling: bool = False) -> Child:
    """A process that writes to the source as the application does, and ends by itself after `lasting`.

    With `cancelling` it deletes rows, too.
    """
    options = ["--rate", str(per_second), "--seconds", str(lasting.total_seconds()), "--seed", str(seed)]
    options += ["--cancel"] if cancelling else []
    environment = neutral_environment(os.environ) | {"TOTESYS_URL": url}
    command = processes.python("infra.local.totesys", "write", *options)
    return processes.start(command, log=log, environment=environment, directory=CHECKOUT)
