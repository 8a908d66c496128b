"""The deliveries of an API: for each data set all pages of one fetch, asked for when a run takes it."""

from __future__ import annotations

import codecs
import hashlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any

from yarl import URL

from contracts.datasets import Api, Contents, Dataset, Format, Paging, Request
from contracts.files import FileRecord, last_fetch_key
from contracts.state import DatasetState
from contracts.tables import SourceColumn, SourceTable
from services.ingestion.api.client import Answer, Client, CredentialsRefusedError
from services.ingestion.api.credentials import Credentials, ReadSecret
from services.ingestion.api.paging import Asked, first_page, next_page, text_at
from services.ingestion.delivery import BadRecord, Delivery, Record, Taken, UnreadableDeliveryError
from services.ingestion.records import read_records
from shared.clock import Clock, utc_now
from shared.codecs import codec_of
from shared.codecs.codec import MIB
from shared.errors import PermanentError
from shared.object_store import ObjectStore

# What a fetch that fails again and again may hold up: after that, the other data sets of its source are asked for as well.
ROUND = timedelta(minutes=5)

MakeClient = Callable[[URL, int], Client]  # of an origin, and the requests it allows in a minute


@dataclass(slots=True)
class ApiDelivery:
    """All pages of one fetch. Nothing is asked for before its records are."""

    table: SourceTable
    dataset: Dataset
    request: Request
    known: DatasetState
    client: Client
    credentials: Credentials
    byte_count: int = field(default=0, init=False)  # of the pages that have been read
    _found: DatasetState | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """The path of its requests."""
        return self.request.path

    @property
    def contents(self) -> Contents:
        """Whether it has every row."""
        return self.dataset.contents

    def state(self) -> DatasetState:
        """What the next fetch begins after; that of the last one if nothing has changed since."""
        if self._found is None:
            raise RuntimeError("a fetch has no state before its records have been read")
        return self._found

    async def records(self) -> AsyncGenerator[list[Record | BadRecord], None]:
        """Its records, page by page; their places count over all pages. None if the server says that nothing has changed.

        Raises: UnreadableDeliveryError; DependencyDownError, TransientError.
        """
        self._found, self.byte_count = None, 0
        asked_for = meaning(self.table, self.request)
        since, digest = self.known.since, hashlib.sha256(asked_for.encode())
        column = next((one for one in self.table.columns if one.name == self.request.since_column), None)
        asked, seen, before = first_page(self.request, self.known.since), set[str](), 0
        async with self.client.session():
            while True:
                answer = await self._ask(asked)
                with answer.body:
                    if answer.response.status == HTTPStatus.NOT_MODIFIED and self._kept:
                        self._found = self.known
                        return
                    if answer.response.status == HTTPStatus.NO_CONTENT:
                        break
                    count = 0
                    self.byte_count += answer.byte_count
                    digest.update(bytes.fromhex(answer.sha256))
                    async for page in self._records_of(answer):
                        since = _furthest(since, page, column) if column else since
                        yield [replace(one, place=before + one.place) for one in page] if before else page
                        count += len(page)
                    self._check_progress(asked, answer.sha256 if count else None, seen)
                    if self.request.cursor_at is not None:
                        since = text_at(answer.body, self.request.cursor_at) or since
                    following = next_page(self.request, asked, answer, count, self.client)
                if following is None:
                    break
                asked, before = following, before + count
        headers = answer.response.headers if self._is_conditional else {}
        sent = {"etag": headers.get("ETag"), "last_modified": headers.get("Last-Modified")}
        kept = {name: value if value and value.isascii() else None for name, value in sent.items()}
        self._found = self.known.model_copy(update={"sha256": digest.hexdigest(), "since": since, "asked": asked_for, **kept})

    @property
    def _is_conditional(self) -> bool:
        """Whether it is asked what has changed since the last answer.

        Only if one answer is everything: of several pages, or of an increment, the first may be as before and others not.
        """
        is_one = self.request.pages.kind is Paging.NONE and self.request.since_parameter is None
        return self.request.method == "GET" and is_one

    async def _ask(self, asked: Asked) -> Answer:
        """Ask for a page; with the secret read again if it is refused, since secrets are rotated."""
        method, (url, body) = self.request.method, asked.sent(self.request.method)
        what, secret = f"{method} {self.request.path}", self.request.api.secret
        try:
            return await self.client.ask(what, method, url, await self._headers(), **body)
        except CredentialsRefusedError:
            self.credentials.forget()
        try:
            return await self.client.ask(what, method, url, await self._headers(), **body)
        except CredentialsRefusedError as error:
            advice = f"correct secret '{secret}', or its permissions there" if secret else "name a secret in the contract"
            raise UnreadableDeliveryError(f"{error}; {advice}") from error

    @property
    def _kept(self) -> dict[str, str]:
        """What asks only for what has changed since the last answer; empty if everything is wanted."""
        known = self.known
        kept = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
        is_wanted = not self._is_conditional or known.sha256 is None
        return {} if is_wanted else {name: value for name, value in kept.items() if value is not None}

    async def _headers(self) -> dict[str, str]:
        accepted = "application/json" if "json" in self.dataset.form.format else "text/csv"
        return {"Accept": f"{accepted}, */*;q=0.5", **self._kept, **await self.credentials.headers()}

    def _check_progress(self, asked: Asked, sha256: str | None, seen: set[str]) -> None:
        """Refuse pages without an end; those without a record may be alike. Raises: UnreadableDeliveryError."""
        limits, path = self.client.limits, self.request.path
        marks = {str(asked.sent(self.request.method)), *([sha256] if sha256 else [])}
        if not seen.isdisjoint(marks):
            raise UnreadableDeliveryError(
                f"the pages of {path} lead back to one that was read; correct the paging in the contract"
            )
        seen |= marks
        if len(seen) > 2 * limits.pages:
            raise UnreadableDeliveryError(f"{path} has more than {limits.pages} pages; ask for larger ones, or for increments")
        if self.byte_count > limits.total_bytes:
            raise UnreadableDeliveryError(f"the pages of {path} exceed {limits.total_bytes // MIB} MiB; ask for increments")

    def _records_of(self, answer: Answer) -> AsyncGenerator[list[Record | BadRecord], None]:
        """The records of a page, in the encoding that its header names. Raises: UnreadableDeliveryError."""
        table, charset = self.table, answer.response.charset
        if self.dataset.form.format in {Format.CSV, Format.JSON_LINES} and not answer.has_end:
            raise UnreadableDeliveryError(
                f"{self.request.path} is answered without Content-Length or chunks, so a cut-off end of its "
                f"{self.dataset.form.format} would not be noticed; use JSON, or ask whoever runs the server"
            )
        if charset is not None:
            try:
                form = replace(self.dataset.form, encoding=codecs.lookup(charset).name)
            except LookupError:
                text = f"{self.request.path} was answered in the unknown encoding '{charset[:40]}'; ask whoever runs the server"
                raise UnreadableDeliveryError(text) from None
            table = replace(table, dataset=replace(self.dataset, form=form))
        return read_records(answer.body, table)


def _furthest(since: str | None, records: Iterable[Record | BadRecord], column: SourceColumn) -> str | None:
    """The greatest of a position and the values of a column, in the order of its type and as the API wrote it."""
    codec, found = codec_of(column.type), list[tuple[Any, str]]()
    values = (record.values.get(column.name) for record in records if isinstance(record, Record))
    for value in (since, *values):
        if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
            with suppress(ValueError, ArithmeticError):  # it is not a value of the column, and in quarantine later
                order = codec.delivered(str(value))
                found.append((Decimal(order) if column.type.is_decimal else order, str(value)))
    return max(found)[1] if found else since


def meaning(table: SourceTable, request: Request) -> str:
    """A hash of what decides which rows and columns are delivered: if it changes, earlier answers lack some of them."""
    since = (request.since_parameter, request.since_column, request.cursor_at, request.first_since)
    asked = (request.path, sorted(request.parameters.items()), since, sorted(column.name for column in table.columns))
    return hashlib.sha256(repr(asked).encode()).hexdigest()


class ApiDeliveries:
    """The deliveries of a source that is an API: every data set once in a round, and a command makes a round.

    A data set whose run has failed comes last, and after ROUND the others are due again: one that keeps failing delays none.
    """

    def __init__(
        self,
        tables: Iterable[SourceTable],
        client: MakeClient,
        secret: ReadSecret,
        objects: ObjectStore,
        bucket: str,
        clock: Callable[[], float] = time.monotonic,
        now: Clock = utc_now,
    ) -> None:
        self._tables, self._clock, self._now = tuple(tables), clock, now
        self._objects, self._bucket = objects, bucket
        self._apis: dict[Api, tuple[Client, Credentials]] = {}
        self._make_client, self._secret = client, secret
        self._round: deque[SourceTable] | None = None  # those that are due in this round; None: the next call begins one
        self._began = 0.0
        self._given: SourceTable | None = None  # not settled yet

    async def next(self, known: Mapping[str, DatasetState]) -> ApiDelivery | None:
        """The next data set that is due in this round; None at its end."""
        failed, self._given = self._given, None
        if self._round is None or (failed is not None and self._clock() - self._began > ROUND.total_seconds()):
            self._round, self._began = deque(table for table in self._tables if table != failed), self._clock()
        if failed is not None:
            self._round.append(failed)
        if not self._round:
            self._round = None
            return None
        table = self._given = self._round.popleft()
        if table.dataset is None or table.dataset.request is None:
            raise PermanentError(f"'{table.name}' is not a data set of an API; all tables of a source are of one kind")
        request = table.dataset.request
        client, credentials = self._api(request.api)
        state = known.get(table.name, DatasetState())
        if state.asked != meaning(table, request):
            state = state.model_copy(update=dict.fromkeys(("sha256", "since", "etag", "last_modified")))
        return ApiDelivery(table, table.dataset, request, state, client, credentials)

    async def settle(self, delivery: Delivery, taken: Taken) -> None:
        """See Deliveries. The record takes the place of that of the fetch before."""
        if not isinstance(delivery, ApiDelivery):
            raise TypeError(f"'{delivery.name}' is not a fetch from an API")
        record = FileRecord(
            dataset=delivery.table.name,
            key=delivery.name,
            version_id="",
            byte_count=delivery.byte_count,
            written_at=self._now(),
            outcome=taken.outcome,
            reason=taken.reason,
            run=taken.run,
            records=taken.records,
            bad=taken.bad,
            recorded_at=self._now(),
        )
        await self._objects.put(self._bucket, last_fetch_key(record.dataset), record.model_dump_json().encode())
        self._given = None

    async def probe(self) -> None:
        """Connect to each API that has been asked. Raises: DependencyDownError."""
        for client, _ in self._apis.values():
            await client.probe()

    def _api(self, api: Api) -> tuple[Client, Credentials]:
        """One client and one token for all data sets of an API: its rate is that of all of them."""
        if api not in self._apis:
            tokens = self._make_client(URL(api.token_url).origin(), api.requests_per_minute) if api.token_url else None
            if tokens is not None:
                tokens.refusals |= {HTTPStatus.BAD_REQUEST}  # as RFC 6749 says in section 5.2
            client = self._make_client(URL(api.url).origin(), api.requests_per_minute)
            self._apis[api] = client, Credentials(api, self._secret, tokens, self._clock)
        return self._apis[api]
