"""Which Starlift a command is about: the one that the environment describes, else the one that runs on this machine."""

from __future__ import annotations

import os

from infra.local.stack import Stack
from services.operator.system import OperatorSettings
from shared.settings import PREFIX


class NowhereError(Exception):
    """Neither the environment nor a local stack says where Starlift is."""


def operator_settings() -> OperatorSettings:
    """The settings of the environment if it has any of ours, else those of the local stack that is up.

    Raises: NowhereError; pydantic.ValidationError for an incomplete environment.
    """
    if any(name.upper().startswith(f"{PREFIX}INGESTION_QUEUE") for name in os.environ):
        return OperatorSettings()
    stack = Stack.found()
    if stack is None:
        raise NowhereError(
            "no Starlift runs here; start one with `starlift up --detach`, or set STARLIFT_INGESTION_QUEUE_URL and the rest"
        )
    os.environ.update(stack.environment_for("operator"))
    return OperatorSettings()
