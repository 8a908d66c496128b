"""A client of one origin: it waits as the server asks, retries what may be temporary, and follows nothing to another origin."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, BinaryIO, cast

import aiohttp
import structlog
import tenacity
from aiohttp.abc import AbstractResolver
from yarl import URL

from services.ingestion.api.guard import SETTING, Allowed, RefusedAddressError
from services.ingestion.delivery import UnreadableDeliveryError
from shared.clock import Clock, utc_now
from shared.codecs.codec import MIB
from shared.errors import DependencyDownError, ServerBusyError

DEPENDENCY = "api"  # the name of its probe

_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_ANSWERS = frozenset({HTTPStatus.OK, HTTPStatus.NON_AUTHORITATIVE_INFORMATION, HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_KEPT_METHOD = frozenset({HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT})
_REDIRECTS = _KEPT_METHOD | {HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER}
_TYPES = ("json", "csv", "text/plain", "octet-stream", "parquet", "gzip", "zstd")  # servers know only some of them

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client accepts of a server."""

    connect: timedelta = timedelta(seconds=10)
    silence: timedelta = timedelta(seconds=60)  # between two parts of an answer
    answer: timedelta = timedelta(minutes=10)  # from the request to the last byte
    tries: int = 5
    wait: timedelta = timedelta(minutes=1)  # between two tries; if the server asks for longer, the run ends
    hold: timedelta = timedelta(hours=1)  # the longest time that a server can ask for
    answer_bytes: int = 256 * MIB  # of one answer, decompressed
    total_bytes: int = 1024 * MIB  # of all pages
    pages: int = 10_000
    redirects: int = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server has answered."""

    response: aiohttp.ClientResponse  # its status, its headers, and the URL after redirects
    body: BinaryIO  # in memory, or in a file without a name if it is large
    byte_count: int
    sha256: str  # of the body

    @property
    def has_end(self) -> bool:
        """Whether its end was announced. Otherwise a connection that breaks looks like one."""
        headers = self.response.headers
        return "Content-Length" in headers or "chunked" in headers.get("Transfer-Encoding", "").lower()


class CredentialsRefusedError(UnreadableDeliveryError):
    """The server refuses the credentials of a request. Recovery: a new secret, or permissions at the server."""


class _PassingError(Exception):
    """A failure that the next try may not meet."""

    def __init__(self, final: DependencyDownError, wait_s: float | None = None) -> None:
        super().__init__(str(final))
        self.final = final  # of the last try
        self.wait_s = wait_s  # that the server asks for


@dataclass(slots=True)
class Client:
    """Asks one origin. Requests follow each other; credentials are the caller's headers, and go nowhere else."""

    origin: URL
    allowed: Allowed
    requests_per_minute: int = 60
    proxy: str | None = None
    limits: Limits = field(default_factory=Limits)
    refusals: frozenset[int] = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})  # of credentials
    resolver: AbstractResolver | None = None  # None: the system's
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    now: Clock = utc_now
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _next_at: float = field(default=0.0, init=False)  # when the rate allows the next request
    _held_until: float = field(default=0.0, init=False)  # what the server has asked for

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Keep connections open between requests. Raises: UnreadableDeliveryError if the origin is refused."""
        # A proxy enforces the list: only its own address is seen here, and it is usually a private one.
        factory = None if self.proxy else self.allowed.socket_factory(self.origin)
        if self.proxy and self.origin.scheme == "http" and self.origin.host not in self.allowed.hosts:
            raise UnreadableDeliveryError(f"{self.origin} is asked without encryption; use https, or add its host to {SETTING}")
        timeout = aiohttp.ClientTimeout(
            total=self.limits.answer.total_seconds(),
            sock_connect=self.limits.connect.total_seconds(),
            sock_read=self.limits.silence.total_seconds(),
        )
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=factory, resolver=self.resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
            headers={"User-Agent": "starlift", "Accept-Encoding": "gzip, deflate"},
            trust_env=False,  # it would also send what ~/.netrc has
        ) as self._session:
            yield

    async def probe(self) -> None:
        """Connect; any answer will do, and none is needed while the server has asked to wait. Raises: DependencyDownError."""
        if self.clock() < self._held_until:
            return
        other = replace(self)  # with a session of its own, beside a fetch
        try:
            async with other.session(), other._request("", "GET", self.origin, {}, {}):  # noqa: SLF001
                return
        except UnreadableDeliveryError:
            return  # a refusal is an answer: the next delivery will meet it, and say so
        except _PassingError as error:
            raise error.final from error

    async def ask(self, what: str, method: str, url: URL, headers: Mapping[str, str], **body: Any) -> Answer:
        """Send a request until it is answered; `body` is json or data, as aiohttp takes it.

        Errors call it `what`, since the paths of redirects and next pages may hold what only the server and we should know.
        Raises: UnreadableDeliveryError, CredentialsRefusedError if the server refuses it; DependencyDownError if it can't be
        reached, ServerBusyError if it keeps failing, or asks to wait for longer than a run should.
        """
        tries = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            stop=tenacity.stop_after_attempt(self.limits.tries),
            wait=self._pause,
            sleep=self.sleep,
            before_sleep=_report_try,
            reraise=True,
        )
        try:
            return await tries(self._ask, what, method, url, headers, body)
        except _PassingError as error:
            raise error.final from error

    async def _ask(self, what: str, method: str, url: URL, headers: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """One try, with its redirects."""
        for _ in range(self.limits.redirects + 1):
            await self._wait_for_the_rate()
            async with self._request(what, method, url, headers, body) as response:
                if response.status not in _REDIRECTS:
                    self._check_status(what, response)
                    return await self._read(what, response)
                location = self.next_url(url, response.headers.get("Location", ""))
                if method != "GET" and response.status not in _KEPT_METHOD:
                    raise UnreadableDeliveryError(f"{what} is redirected to a GET; correct the path or the method")
                url = location
        raise UnreadableDeliveryError(f"{what} is redirected more than {self.limits.redirects} times; correct the path")

    def next_url(self, url: URL, location: str) -> URL:
        """Where an answer to a request of `url` leads. Raises: UnreadableDeliveryError for another origin than this one."""
        try:
            target = url.join(URL(location))
            if location and target.origin() == self.origin and target.user is None:
                return target
            place = f"to {target.origin()}"
        except ValueError:
            place = "to an invalid URL"
        raise UnreadableDeliveryError(
            f"an answer leads {place}; only {self.origin}, which the contract names, is asked: correct the URL in the "
            "contract if the API has moved"
        )

    @asynccontextmanager
    async def _request(
        self, what: str, method: str, url: URL, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request, and class what goes wrong until its answer has been read."""
        session = self._session
        if session is None:
            raise RuntimeError("requests are made within session()")
        try:
            async with session.request(
                method, url, headers=headers, allow_redirects=False, proxy=self.proxy, **body
            ) as response:
                yield response
        except aiohttp.ClientConnectorCertificateError as error:
            advice = "correct its certificate, or the host in the contract"
            raise UnreadableDeliveryError(f"the certificate of {self.origin} is not valid here; {advice}") from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if isinstance(refused := getattr(error, "os_error", None), RefusedAddressError):
                raise UnreadableDeliveryError(str(refused)) from error
            down = DependencyDownError(
                DEPENDENCY, f"{self.origin} can't be reached ({type(error).__name__}); check the network"
            )
            raise _PassingError(down) from error
        except aiohttp.ClientHttpProxyError as error:
            raise UnreadableDeliveryError(
                f"the proxy refuses {self.origin} with status {error.status}; allow it there, or correct STARLIFT_API_PROXY"
            ) from error
        except aiohttp.InvalidURL as error:
            raise UnreadableDeliveryError(
                f"{self.origin} is not a URL that can be asked; correct it in the contract"
            ) from error
        except aiohttp.ClientResponseError as error:
            text = f"{what} was not answered with valid HTTP ({type(error).__name__}); ask whoever runs the server"
            raise UnreadableDeliveryError(text) from error
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise _PassingError(_busy(f"{what} was not answered in full ({type(error).__name__})")) from error

    def _check_status(self, what: str, response: aiohttp.ClientResponse) -> None:
        status, what = response.status, f"{what} was answered {response.status}"
        if status in _ANSWERS:
            return
        if status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            wait = _retry_after(response.headers.get("Retry-After", ""), self.now)
            if wait is not None and wait > self.limits.wait:
                wait = min(wait, self.limits.hold)
                self._held_until = self.clock() + wait.total_seconds()
                raise _busy(f"{what}, with the request to wait for {wait}")
            raise _PassingError(_busy(what), None if wait is None else wait.total_seconds())
        if status in self.refusals:
            raise CredentialsRefusedError(what)
        raise UnreadableDeliveryError(f"{what}; correct the path or the parameters in the contract")

    async def _read(self, what: str, response: aiohttp.ClientResponse) -> Answer:
        limit = self.limits.answer_bytes
        kind = response.content_type if "Content-Type" in response.headers else "text/plain"
        if response.status == HTTPStatus.OK and not any(known in kind for known in _TYPES):
            advice = "this may be a login page: check the credentials" if "html" in kind else "correct the path in the contract"
            raise UnreadableDeliveryError(f"{what} was answered with {kind}, which is not data; {advice}")
        digest, count = hashlib.sha256(), 0
        with ExitStack() as stack:
            body = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=8 * MIB))
            async for chunk in response.content.iter_any():
                count += len(chunk)
                if count > limit:
                    raise UnreadableDeliveryError(f"the answer to {what} exceeds {limit // MIB} MiB; ask for smaller pages")
                digest.update(chunk)
                body.write(chunk)
            body.seek(0)
            stack.pop_all()  # whoever reads the answer closes it
        return Answer(response, cast("BinaryIO", body), count, digest.hexdigest())

    async def _wait_for_the_rate(self) -> None:
        """Wait until the rate allows another request. Requests are spaced evenly, so no minute has more than it may."""
        now = self.clock()
        if now < self._held_until:
            raise _busy(f"{self.origin} has asked to wait for another {timedelta(seconds=round(self._held_until - now))}")
        at = max(now, self._next_at)
        self._next_at = at + 60 / self.requests_per_minute
        if at > now:
            await self.sleep(at - now)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """What the server asks for; otherwise full jitter: whoever else waits for it does not come back at the same moment."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait_s if isinstance(error, _PassingError) else None
        longest = self.limits.wait.total_seconds()
        return tenacity.wait_random_exponential(multiplier=1, max=longest)(state) if asked is None else asked


def _retry_after(text: str, now: Clock) -> timedelta | None:
    """What the header Retry-After asks for: seconds or a date (RFC 9110, 10.2.3)."""
    try:
        wait = timedelta(seconds=int(text)) if text.isdecimal() else parsedate_to_datetime(text) - now()
    except OverflowError:
        return timedelta.max
    except (ValueError, TypeError):  # TypeError: a date without a time zone
        return None
    return max(wait, timedelta(0))


def _busy(text: str) -> ServerBusyError:
    return ServerBusyError(DEPENDENCY, f"{text}; it is asked again later")


def _report_try(state: tenacity.RetryCallState) -> None:
    reason = str(state.outcome.exception()) if state.outcome else ""
    _log.info("api_request_retried", attempt=state.attempt_number, delay_s=round(state.upcoming_sleep, 3), reason=reason)
