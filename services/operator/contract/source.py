"""The source that a command looks into."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from pydantic import SecretStr

from services.operator.contract.urls import url_or_secret
from services.operator.errors import UsageError
from shared.errors import PermanentError
from shared.postgres import Database


@asynccontextmanager
async def open_source(chosen: SecretStr | None) -> AsyncIterator[Database]:
    """The source at the URL that was `chosen`, else that of STARLIFT_SOURCE_SECRET.

    Raises: UsageError for a URL that can't be read, and if there is none; DependencyDownError.
    """
    url = await url_or_secret("source", chosen)
    if url is None:
        raise UsageError("no source database configured: set STARLIFT_SOURCE_URL or STARLIFT_SOURCE_SECRET, or pass its URL")
    try:
        database = Database("source", url, connections=1)
    except PermanentError as error:
        raise UsageError(str(error)) from error
    async with aclosing(database):
        yield database
