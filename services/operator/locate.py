"""Which Starlift a command works on: the one that the environment describes, else the one that runs on this machine.

An image for AWS does not have what the local stack imports, so this is imported only where the extra `local` is installed.
"""

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

# What of the environment also holds for a local stack; the other variables of ours describe another Starlift.
_OURS = (f"{PREFIX}CONTRACT", f"{PREFIX}LOG_LEVEL")


def operator_settings() -> OperatorSettings:
    """The settings of the environment if it has any of ours, else those of the local stack that is up.

    Raises: UsageError for an incomplete environment, or if there is no Starlift.
    """
    if not is_described():
        enter(_local_environment())
    try:
        return OperatorSettings()
    except ValidationError as error:
        raise UsageError(explained(error, OperatorSettings)) from error


def enter(environment: Mapping[str, str]) -> None:
    """Replace the environment of this process: the user's AWS profile, or PGSSLMODE, would lead elsewhere."""
    os.environ.clear()
    os.environ.update(environment)


def chosen_settings() -> dict[str, str]:
    """The settings that a local stack which we start takes from our environment: contract, source name, log level, APIs."""
    of_apis = (name for name in os.environ if name.startswith(f"{PREFIX}API_"))
    return _set_among(*_OURS, f"{PREFIX}SOURCE_NAME", *of_apis)


def has_local_stack() -> bool:
    """Whether the extra `local` is installed."""
    return find_spec("localstack_client") is not None


def local_stack() -> LocalStack | None:
    """The local stack that a command works on; None if it works on another Starlift. Call it before `operator_settings`."""
    if is_described() or not has_local_stack():
        return None
    from infra.local.stack import Stack  # noqa: PLC0415 (needs the extra `local`)
    from infra.local.state import default_home  # noqa: PLC0415 (likewise)
    from services.operator.local.inspection import LocalStack  # noqa: PLC0415 (likewise)

    return None if Stack.found() is None else LocalStack(default_home())


def is_described() -> bool:
    """Whether the environment describes a Starlift that is deployed."""
    return any(name.upper().startswith(f"{PREFIX}INGESTION_QUEUE") for name in os.environ)


def _local_environment() -> dict[str, str]:
    """The environment of a service of the local stack. Raises: UsageError if no stack is up."""
    describe = "set STARLIFT_INGESTION_QUEUE_URL and the other settings of the operator"
    if not has_local_stack():
        raise UsageError(f"the environment does not describe a Starlift; {describe}")
    from infra.local.stack import Stack  # noqa: PLC0415 (needs the extra `local`)
    from infra.local.state import OPERATOR, default_home, service_environment  # noqa: PLC0415 (likewise)
    from services.operator.local.inspection import stacks_of_this_user  # noqa: PLC0415 (likewise)

    state = Stack.found()
    if state is not None:
        return _set_among(*_OURS) | service_environment(OPERATOR, state, os.environ)
    found = ", ".join(f"STARLIFT_HOME={home}" for home in stacks_of_this_user())
    elsewhere = f"one is running elsewhere: set {found}" if found else "start one with `starlift up --detach`"
    raise UsageError(f"no Starlift is running in {default_home()}; {elsewhere}, or {describe}")


def _set_among(*names: str) -> dict[str, str]:
    return {name: os.environ[name] for name in names if os.environ.get(name)}
