"""The source that a command looks into: its URL, without a password where others can read it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from pydantic import SecretStr

from services.operator.errors import UsageError
from shared.database_url import database_url
from shared.errors import PermanentError
from shared.postgres import Database
from shared.postgres_url import parse_url
from shared.settings import PREFIX


@asynccontextmanager
async def open_source(given: str | None) -> AsyncIterator[Database]:
    """The source at the URL `given` on a command line, else at that of STARLIFT_SOURCE_URL or STARLIFT_SOURCE_SECRET.

    Raises: UsageError for a URL that can't be read, or has a password where other users can read it; DependencyDownError.
    """
    try:
        url = await _url(given)
    except PermanentError as error:
        raise UsageError(str(error)) from error
    async with aclosing(Database("source", url, connections=1)) as database:
        yield database


async def _url(given: str | None) -> SecretStr:
    if given is not None:
        if parse_url("source", SecretStr(given)).password is not None or "sslpassword=" in given:
            raise UsageError(
                "the URL on the command line has a password, which other users of this machine can read; set "
                f"{PREFIX}SOURCE_URL to it and leave it out of the command"
            )
        return SecretStr(given)
    found, secret = (os.environ.get(f"{PREFIX}SOURCE_{name}") for name in ("URL", "SECRET"))
    region = os.environ.get(f"{PREFIX}REGION", "")
    return await database_url("source", url=SecretStr(found) if found else None, secret_id=secret or None, region=region)
