"""The contract that STARLIFT_CONTRACT names, or one sentence that explains why it can't be imported."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import contracts

HERE = Path(contracts.__path__[0])


def load_contract(value: object) -> object:
    """The CONTRACT of a module given by its name. Raises: ValueError."""
    if not isinstance(value, str):
        return value
    try:
        module = importlib.import_module(value)
    except Exception as error:
        raise ValueError(_refusal(value, error)) from error
    try:
        return module.CONTRACT
    except AttributeError:
        raise ValueError(f"module '{value}' has no CONTRACT; assign one, as contracts/totesys.py does") from None


def _refusal(name: str, error: Exception) -> str:
    if name.endswith(".py") or "/" in name:
        return f"'{name}' is a file; give the name of its module, such as contracts.{Path(name).stem}"
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is None or not f"{name}.".startswith(f"{missing}."):
        reason = " ".join(str(error).split())
        return f"module '{name}' raises {type(error).__name__} while it is imported: {reason}; correct it"
    module = name.removeprefix("contracts.")
    looked_in = [str(HERE)] if name != module else [place for place in sys.path if not place.startswith(sys.base_prefix)]
    return (
        f"no module '{name}' can be imported (looked in {', '.join(looked_in)}); save it as {HERE / f'{module}.py'} and set "
        f"STARLIFT_CONTRACT=contracts.{module}, or add its folder to PYTHONPATH"
    )
