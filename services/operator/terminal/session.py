"""The Starlift that a command works on, open while it works; and options that several commands take."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from typing import Annotated, TypeVar

import typer

from services.operator.locate import operator_settings
from services.operator.system import System, open_system
from services.operator.terminal.harness import TerminatedError
from services.operator.terminal.sources import of_chosen_source

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
WaitSeconds = Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait at most.")]

Result = TypeVar("Result")
Opener = Callable[[], AbstractAsyncContextManager[System]]


_OPENER: ContextVar[Opener] = ContextVar("opener", default=lambda: open_system(of_chosen_source(operator_settings())))


@contextmanager
def opened_by(opener: Opener) -> Iterator[None]:
    """Let the commands of the block work on another system: one of fakes, in tests."""
    token = _OPENER.set(opener)
    try:
        yield
    finally:
        _OPENER.reset(token)


def opening() -> AbstractAsyncContextManager[System]:
    """The system that the command works on, to be opened."""
    return _OPENER.get()()


def with_system(work: Callable[[System], Awaitable[Result]]) -> Result:
    """Do `work` on the Starlift that the environment describes, or that runs on this machine.

    SIGINT and SIGTERM cancel `work`, so that it cleans up. Raises: KeyboardInterrupt then.
    """

    async def opened() -> Result:
        async with opening() as system:
            return await work(system)

    return run(opened())


def run(work: Awaitable[Result]) -> Result:
    """The result of `work`. SIGTERM cancels it, as asyncio does for SIGINT. Raises: KeyboardInterrupt then."""

    async def stoppable() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        is_terminated = False

        def stop() -> None:
            nonlocal is_terminated
            is_terminated = True
            if task is not None:
                task.cancel()

        loop.add_signal_handler(signal.SIGTERM, stop)
        try:
            return await work
        except asyncio.CancelledError:
            if is_terminated:
                raise TerminatedError from None
            raise

    before = signal.getsignal(signal.SIGTERM)
    try:
        return asyncio.run(stoppable())
    finally:
        signal.signal(signal.SIGTERM, before)  # the loop has put the default back, not ours
