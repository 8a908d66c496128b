"""Which Starlift a command is about: the one that the environment describes, else the one that runs on this machine."""

from __future__ import annotations

import os
from importlib.util import find_spec

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
    environment = _local_environment()
    if environment is None:
        raise NowhereError(
            "no Starlift runs here; start one with `starlift up --detach`, or set STARLIFT_INGESTION_QUEUE_URL and the rest"
        )
    os.environ.update(environment)
    return OperatorSettings()


def has_local_stack() -> bool:
    """Whether the extra `local` is installed."""
    return find_spec("localstack_client") is not None


def _local_environment() -> dict[str, str] | None:
    if not has_local_stack():
        return None
    from infra.local.stack import Stack  # noqa: PLC0415 (an image for AWS is without what it imports)

    state = Stack.found()
    return None if state is None else state.environment_for("operator")
