"""One rule for the URLs of databases on a command line: other users can read it, so it never holds a password."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from getpass import getpass
from pathlib import Path
from urllib.parse import quote

from pydantic import SecretStr

from contracts.contract import Contract
from services.operator.errors import UsageError
from shared.database_url import database_url
from shared.errors import PermanentError
from shared.postgres_url import PostgresUrl, parse_url
from shared.settings import PREFIX, source_variable

_KEY_PASSWORD = re.compile(r"[?&]sslpassword=")
_NO_PASSWORD = re.compile(r"//[^/@]*:@")  # `user:@host`: there is none, and none is asked for


def url_variable(name: str) -> str:
    """The variable that holds the URL of the database called `name`: STARLIFT_SOURCE_URL, STARLIFT_WAREHOUSE_URL."""
    return f"{PREFIX}{name.upper()}_URL"


def up_variable(name: str) -> str:
    """The variable that `starlift up` took first, and that still comes before the other one."""
    return f"{PREFIX}UP_{name.upper()}_URL"


def chosen_url(
    name: str, option: str | None, ask: Callable[[str], str] | None = None, *, source: str | None = None
) -> SecretStr | None:
    """The URL of the database called `name` ('source', 'warehouse'), password included; None if none was given.

    With `source`, one of several, the variable that ends with its name comes first.

    `option` is that of the command line: a URL without a password, or `@FILE` for a file that holds the whole URL. Without it,
    the variables of the environment count. `ask` prompts for the password that a URL of the command line lacks; by default a
    terminal does, if stdin is one. Raises: UsageError, without any part of the URL.
    """
    if option is None:
        own = os.environ.get(source_variable("source_url", source)) if source is not None else None
        found = own or os.environ.get(up_variable(name)) or os.environ.get(url_variable(name))
        return SecretStr(found) if found else None
    if option.startswith("@"):
        return _checked(name, _read(Path(option[1:]).expanduser()))[0]
    url, parsed = _checked(name, option)
    if parsed.password is not None or _KEY_PASSWORD.search(option):
        raise UsageError(
            f"the {name} URL on the command line holds a password, which other users can read there; leave it out and type it "
            f"when asked, or set {url_variable(name)}, or pass @FILE, a file that holds the URL"
        )
    if ask is None and sys.stdin.isatty():
        ask = getpass
    if ask is None or _NO_PASSWORD.search(option):
        return url
    try:
        password = ask(f"Password of {parsed.user} for the {name} database (Enter: none): ")
    except EOFError:
        raise KeyboardInterrupt from None
    return SecretStr(f"{option}{'&' if '?' in option else '?'}password={quote(password, safe='')}") if password else url


def main_source(contract: Contract) -> str:
    """The source whose variables do not end with its name: STARLIFT_SOURCE_NAME or, of several sources, the first one.

    Raises: UsageError if the contract names sources, and not that one.
    """
    name = os.environ.get(f"{PREFIX}SOURCE_NAME") or next(iter(contract.sources), "")
    if contract.sources and name not in contract.sources:
        raise UsageError(f"STARLIFT_SOURCE_NAME={name} is not one of the contract's sources {', '.join(contract.sources)}")
    return name


async def urls_of_others(contract: Contract) -> dict[str, SecretStr | None]:
    """The URL of every database but that of the main source, from the variables that end with its name; None where none is set.

    Raises: UsageError, DependencyDownError.
    """
    found: dict[str, SecretStr | None] = {}
    for source in contract.sources:
        if source != main_source(contract) and not contract.is_delivered(source):
            url = os.environ.get(source_variable("source_url", source))
            secret = os.environ.get(source_variable("source_secret", source))
            found[source] = await _with_secret("source", SecretStr(url) if url else None, secret)
    return found


async def url_or_secret(name: str, url: SecretStr | None) -> SecretStr | None:
    """`url`, with what STARLIFT_SOURCE_SECRET or STARLIFT_WAREHOUSE_SECRET adds. Raises: UsageError, DependencyDownError."""
    return await _with_secret(name, url, os.environ.get(f"{PREFIX}{name.upper()}_SECRET"))


async def _with_secret(name: str, url: SecretStr | None, secret: str | None) -> SecretStr | None:
    if not secret:
        return url
    try:
        return await database_url(name, url=url, secret_id=secret, region=os.environ.get(f"{PREFIX}REGION", ""))
    except PermanentError as error:
        raise UsageError(str(error)) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"'{path}' can't be read ({reason}); correct the path or its permissions") from None


def _checked(name: str, text: str) -> tuple[SecretStr, PostgresUrl]:
    url = SecretStr(text.strip())
    try:
        return url, parse_url(name, url)
    except PermanentError as error:
        raise UsageError(str(error)) from None
