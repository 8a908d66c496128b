"""Which Starlift a command is about: the one that the environment describes, else the one that runs on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pydantic import ValidationError

from services.operator.errors import UsageError
from services.operator.system import OperatorSettings
from shared.settings import PREFIX, explained

if TYPE_CHECKING:
    from services.operator.local.inspection import LocalStack

# What of our own environment holds for a local stack, too; the rest of STARLIFT_* describes another Starlift.
_OURS = (f"{PREFIX}CONTRACT", f"{PREFIX}LOG_LEVEL")


class WrongSettingsError(UsageError):
    """The environment does not say, or says wrongly, what to work on. Recovery: correct it."""


class NowhereError(WrongSettingsError):
    """Neither the environment nor a local stack says where Starlift is."""


def operator_settings() -> OperatorSettings:
    """The settings of the environment if it has any of ours, else those of the local stack that is up.

    Raises: NowhereError; WrongSettingsError for an incomplete environment.
    """
    if not _is_described():
        environment = _local_environment()
        if environment is None:
            raise NowhereError(_nowhere())
        enter(environment)
    try:
        return OperatorSettings()
    except ValidationError as error:
        raise WrongSettingsError(explained(error, OperatorSettings)) from error


def enter(environment: Mapping[str, str]) -> None:
    """Let this process see nothing but `environment`: an AWS profile, say, or a PGSSLMODE of the person's leads elsewhere."""
    os.environ.clear()
    os.environ.update(environment)


def chosen_settings() -> dict[str, str]:
    """What of our own environment a local stack that we start is told: contract, source name, how much to log."""
    return _told(*_OURS, f"{PREFIX}SOURCE_NAME")


def has_local_stack() -> bool:
    """Whether the extra `local` is installed."""
    return find_spec("localstack_client") is not None


def local_stack() -> LocalStack | None:
    """The local stack that a command works on; None if it works on another Starlift. Ask before `operator_settings`."""
    if _is_described() or not has_local_stack():
        return None
    from infra.local.stack import Stack  # noqa: PLC0415 (an image for AWS lacks what it imports)
    from infra.local.state import default_home  # noqa: PLC0415 (likewise)
    from services.operator.local.inspection import LocalStack  # noqa: PLC0415 (likewise)

    return None if Stack.found() is None else LocalStack(default_home())


def _is_described() -> bool:
    """Whether our own environment says where a Starlift is."""
    return any(name.upper().startswith(f"{PREFIX}INGESTION_QUEUE") for name in os.environ)


def _nowhere() -> str:
    if not has_local_stack():
        return "the environment names no Starlift; set STARLIFT_INGESTION_QUEUE_URL and the rest"
    from infra.local.state import default_home  # noqa: PLC0415 (an image for AWS lacks what it imports)
    from services.operator.local.inspection import stacks_of_this_user  # noqa: PLC0415 (likewise)

    found = ", ".join(f"STARLIFT_HOME={home}" for home in stacks_of_this_user())
    elsewhere = f"one runs elsewhere: set {found}" if found else "start one with `starlift up --detach`"
    return f"no Starlift runs in {default_home()}; {elsewhere}, or set STARLIFT_INGESTION_QUEUE_URL and the rest"


def _local_environment() -> dict[str, str] | None:
    if not has_local_stack():
        return None
    from infra.local.stack import Stack  # noqa: PLC0415 (an image for AWS lacks what it imports)
    from infra.local.state import OPERATOR, service_environment  # noqa: PLC0415 (likewise)

    state = Stack.found()
    return None if state is None else _told(*_OURS) | service_environment(OPERATOR, state, os.environ)


def _told(*names: str) -> dict[str, str]:
    return {name: os.environ[name] for name in names if os.environ.get(name)}
