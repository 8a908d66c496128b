"""Single statements for the set-up, from code that is synchronous, whether or not an event loop runs around it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import SecretStr

from shared.postgres_url import read_url

_CONNECT_S = 30.0
ResultT = TypeVar("ResultT")


def execute(url: str, *statements: str) -> None:
    """Runs statements one after another, each in a transaction of its own."""
    _outside_any_loop(_execute(url, statements))


def fetch_value(url: str, query: str, *arguments: object) -> Any:
    """The first column of the first row; None if there is no row."""
    return _outside_any_loop(_fetch_value(url, query, arguments))


async def _execute(url: str, statements: tuple[str, ...]) -> None:
    connection = await read_url("local", SecretStr(url)).connect(timeout=_CONNECT_S)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _fetch_value(url: str, query: str, arguments: tuple[object, ...]) -> Any:
    connection = await read_url("local", SecretStr(url)).connect(timeout=_CONNECT_S)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


def _outside_any_loop(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
