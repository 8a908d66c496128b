"""The contract that STARLIFT_CONTRACT names: a file, an object in S3, or one that Starlift ships."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import botocore.exceptions
import botocore.session

from contracts.contract import Contract
from contracts.tables import ContractError
from contracts.yaml_text import BYTES_MAXIMUM, read_contract

SUFFIXES = (".yaml", ".yml")


def load_contract(value: object) -> object:
    """The contract that a text names; anything else as it is. Raises: ValueError, with what to do about it."""
    if not isinstance(value, str):
        return value
    return contract_named(value)


def contract_named(name: str) -> Contract:
    """The contract called `name`: `s3://bucket/key[?versionId=…]`, a path, or a shipped one. Raises: ContractError."""
    return read_contract(contract_text(name), Path(name).name)


def contract_text(name: str) -> str:
    """The text of the contract called `name`. Raises: ContractError."""
    try:
        if name.startswith("s3://"):
            return _object(name).decode()
        if is_path(name):
            return _file(Path(name).expanduser()).decode()
        return _shipped(name)
    except UnicodeDecodeError as error:
        raise ContractError(f"'{name}' is not UTF-8: byte {error.start}; save it in that encoding") from None


def is_path(name: str) -> bool:
    """Whether a contract's name is that of a file."""
    return name.endswith(SUFFIXES) or "/" in name or os.sep in name


def located(name: str) -> str:
    """The name by which processes in any directory find the contract: the path of a file becomes absolute."""
    return str(Path(name).expanduser().absolute()) if is_path(name) and not name.startswith("s3://") else name


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BYTES_MAXIMUM + 1)
    except OSError as error:
        raise ContractError(f"'{path}' can't be read ({error.strerror}); correct the path (looked in {Path.cwd()})") from None


def _object(uri: str) -> bytes:
    address, _, version = uri.removeprefix("s3://").partition("?versionId=")
    bucket, _, key = address.partition("/")
    if not bucket or not key:
        raise ContractError(f"'{uri}' is not s3://bucket/key")
    needed = {"VersionId": version} if version else {}
    try:
        client: Any = botocore.session.get_session().create_client("s3")
        body: bytes = client.get_object(Bucket=bucket, Key=key, **needed)["Body"].read(BYTES_MAXIMUM + 1)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        action = "s3:GetObjectVersion" if version else "s3:GetObject"
        raise ContractError(f"'{uri}' can't be read ({error}); upload it, or allow {action} on it") from None
    return body


def _shipped(name: str) -> str:
    places = {Path(one.name).stem: one for one in resources.files("contracts").iterdir() if one.name.endswith(SUFFIXES)}
    if name in places:
        return places[name].read_text(encoding="utf-8")
    if name.startswith("contracts.") or name.endswith(".py"):
        shipped = name.removeprefix("contracts.")
        remedy = (
            f"; it is STARLIFT_CONTRACT={shipped} now" if shipped in places else "; `starlift convert` makes one of a module"
        )
        raise ContractError(f"'{name}' is a Python module, and contracts are YAML documents{remedy}")
    raise ContractError(
        f"Starlift ships no contract '{name}', only {', '.join(sorted(places))}; give a file by its path, such as ./{name}.yaml"
    )
