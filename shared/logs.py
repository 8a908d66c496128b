"""Logs: one JSON line per event on stdout: the event's name and its values, never row data or secrets."""

from __future__ import annotations

import json
import logging
import sys
from types import TracebackType
from typing import Any, Literal

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from contracts.messages import NewerMessageError, UndecodableMessageError
from shared.errors import DependencyDownError, PermanentError, TransientError

Level = Literal["debug", "info", "warning", "error"]

OUR_PACKAGES = ("contracts", "services", "shared")
_OUR_ERRORS = (TransientError, PermanentError, DependencyDownError, UndecodableMessageError, NewerMessageError)
_TEXT_BYTES_MAXIMUM = 4096
_FIRST = ("timestamp", "level", "service", "event")


def configure_logs(service: str, *, level: Level = "info") -> None:
    """Send our events, and what libraries log from `warning` on, to stdout.

    `structlog.contextvars.bind_contextvars(run=…)` adds a value to every later event of the same asyncio task.
    """
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _ServiceName(service),
        _describe_error,
    ]
    ending: list[Processor] = [_in_order, structlog.processors.JSONRenderer(json.dumps, default=str)]
    structlog.configure(
        processors=[*common, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(),
    )
    foreign = logging.StreamHandler(sys.stdout)
    foreign.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.basicConfig(handlers=[foreign], level=logging.WARNING, force=True)


def frames_of(error: BaseException) -> tuple[str, ...]:
    """Where an error passed through our code, outermost first: module and function, without line numbers."""
    return tuple(frame for frame, _ in _own_frames(error.__traceback__))


def error_text(error: BaseException, bytes_maximum: int = _TEXT_BYTES_MAXIMUM) -> str:
    """The text of one of our errors; for any other only its place, because its text may quote a row.

    A text may quote an object's key from a message, which may be of any length and hold lone surrogates.
    """
    if isinstance(error, _OUR_ERRORS):
        text = str(error)
    else:
        text = f"unexpected {type(error).__qualname__} in {place_of(error)}; its text is withheld because it may quote a row"
    return text.encode(errors="backslashreplace")[:bytes_maximum].decode(errors="ignore")


def place_of(error: BaseException) -> str:
    """The innermost place of ours that an error came from, for a person."""
    frames = _own_frames(error.__traceback__)
    return f"{frames[-1][0]}, line {frames[-1][1]}" if frames else "no code of ours"


def _own_frames(traceback: TracebackType | None) -> list[tuple[str, int]]:
    frames = []
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in OUR_PACKAGES:
            frames.append((f"{module}.{traceback.tb_frame.f_code.co_qualname}", traceback.tb_lineno))
        traceback = traceback.tb_next
    return frames


class _ServiceName:
    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = self._service
        return event


def _describe_error(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """An exception becomes its type and our frames: its text, and the values in its traceback, may be row data."""
    error: Any = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error_type"] = type(error).__qualname__
        event["frames"] = [f"{frame}:{line}" for frame, line in _own_frames(error.__traceback__)]
    return event


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: event[key] for key in _FIRST if key in event} | {key: event[key] for key in event if key not in _FIRST}
