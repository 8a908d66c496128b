"""The headers that authenticate requests to an API, made of a secret that only this installation's sources may read."""

from __future__ import annotations

import json
import os
import re
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from yarl import URL

from contracts.datasets import Api, Authentication
from services.ingestion.api.client import DEPENDENCY, Client, CredentialsRefusedError
from services.ingestion.delivery import UnreadableDeliveryError
from shared.database_url import read_secret
from shared.errors import DependencyDownError, PermanentError, ServerBusyError, TransientError

ReadSecret = Callable[[str], Awaitable[str]]  # the text of the secret of that name; raises as `secrets_below` says

FOLDER = "sources/"  # below the installation's own secrets; nothing else is ever read for an API
GIVEN = "STARLIFT_API_SECRET_"  # and a secret's name in capitals: where there is no Secrets Manager, as on a laptop
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_USED = 0.9  # of a token's life: it must not expire on the way
_LIFE_S = 300.0  # of a token, if the server does not say
_ANSWER_BYTES = 2**20  # of an answer with a token: all of it is in memory


def secrets_below(prefix: str, region: str) -> ReadSecret:
    """What reads the secrets below `prefix`, the name of the installation's sources ('starlift/production/sources/').

    One that the environment gives comes first. The function raises UnreadableDeliveryError for a secret that does not exist or
    may not be read; DependencyDownError, TransientError.
    """

    async def read(name: str) -> str:
        if not _NAME.fullmatch(name):
            raise UnreadableDeliveryError(f"'{name}' is not the name of a secret below {prefix}; correct the contract")
        variable = f"{GIVEN}{name.upper().replace('-', '_')}"
        if given := os.environ.get(variable):
            return given
        if not prefix.endswith(f"/{FOLDER}"):
            raise UnreadableDeliveryError(
                f"no secret '{name}' is configured: set {variable} to the secret itself, or STARLIFT_API_SECRETS to a "
                f"prefix that ends with /{FOLDER}"
            )
        try:
            return await read_secret(prefix + name, region)
        except PermanentError as error:
            raise UnreadableDeliveryError(str(error)) from error
        except (DependencyDownError, TransientError) as error:  # of Secrets Manager, which has no probe: wait as for the API
            raise ServerBusyError(DEPENDENCY, str(error)) from error

    return read


@dataclass(slots=True)
class Credentials:
    """The headers of requests to an API. The secret and the token are kept until they are refused."""

    api: Api
    read: ReadSecret
    client: Client | None = None  # of the origin of `token_url`
    clock: Callable[[], float] = time.monotonic
    _secret: Mapping[str, str] | None = field(default=None, init=False)
    _token: tuple[str, float] | None = field(default=None, init=False)  # and when it is no longer used

    def forget(self) -> None:
        """Read the secret again for the next request: it may have been rotated."""
        self._secret = self._token = None

    async def headers(self) -> dict[str, str]:
        """What the next request sends. Raises: UnreadableDeliveryError, and as `Client.ask` if a token is asked for."""
        match self.api.authentication:
            case Authentication.NONE:
                return {}
            case Authentication.BASIC:
                username, password = await self._fields("username", "password")
                return {"Authorization": _basic(username, password)}
            case Authentication.BEARER:
                (token,) = await self._fields("token")
                return {"Authorization": f"Bearer {token}"}
            case Authentication.API_KEY:
                (key,) = await self._fields("key")
                return {self.api.header: key}
            case Authentication.OAUTH2:
                if self._token is None or self.clock() >= self._token[1]:
                    self._token = await self._ask_for_a_token()
                return {"Authorization": f"Bearer {self._token[0]}"}

    async def _fields(self, *names: str) -> list[str]:
        """Fields of the secret, none of which could end a header."""
        if self._secret is None:
            try:
                self._secret = json.loads(await self.read(self.api.secret or ""))
            except ValueError:
                self._secret = {}
        found = [self._secret.get(name) if isinstance(self._secret, dict) else None for name in names]
        if not all(isinstance(value, str) and value and value.isprintable() for value in found):
            self._secret = None
            form = ", ".join(f'"{name}": …' for name in names)
            raise UnreadableDeliveryError(f"secret '{self.api.secret}' is not JSON of the form {{{form}}}; correct it")
        return [str(value) for value in found]

    async def _ask_for_a_token(self) -> tuple[str, float]:
        """Client credentials: https://www.rfc-editor.org/rfc/rfc6749#section-4.4, the client as in its section 2.3.1."""
        if self.client is None:
            raise UnreadableDeliveryError("OAuth2 needs `token_url`; add it to the contract")
        client, secret = await self._fields("client_id", "client_secret")
        form = {"grant_type": "client_credentials", **({"scope": self.api.scope} if self.api.scope else {})}
        headers = {"Authorization": _basic(quote_plus(client), quote_plus(secret)), "Accept": "application/json"}
        asked_at, url = self.clock(), URL(str(self.api.token_url))
        async with self.client.session():
            answer = await self.client.ask(f"POST {url.path}", "POST", url, headers, data=form)
        with answer.body as body:
            try:
                found = json.loads(body.read(_ANSWER_BYTES))
                token, life = found["access_token"], float(found.get("expires_in") or _LIFE_S)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
                token, life = "", 0.0
        if not (isinstance(token, str) and token and token.isascii() and token.isprintable()):
            raise CredentialsRefusedError(f"{url.path} answers without an access_token; correct `token_url` in the contract")
        return token, asked_at + life * _USED


def _basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()
