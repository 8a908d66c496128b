"""How a contract's document says that the rows of a source table are delivered: as files, or as answers of an HTTP API."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from contracts.datasets import Api, Authentication, Contents, Format, Pages, Paging, RecordForm, Request
from contracts.document_types import Closed, Scalar, SqlName, Written

_NOT_A_URL = "it is not an absolute URL; write it as https://host/path"
_BODY_PAGING = frozenset({Paging.NEXT_URL, Paging.CURSOR})
_FORMATS = {  # to which an option belongs
    "records": (Format.JSON,),
    "delimiter": (Format.CSV,),
    "null_text": (Format.CSV,),
    "encoding": (Format.CSV, Format.JSON_LINES),
}
_PAGING_NEEDS = {
    Paging.NONE: (),
    Paging.LINK: (),
    Paging.NEXT_URL: ("at",),
    Paging.CURSOR: ("parameter", "at"),
    Paging.OFFSET: ("parameter", "size"),
    Paging.PAGE: ("parameter",),
}


def _url(text: str) -> str:
    """A URL without credentials, to which a path can be added."""
    try:
        parts = urlsplit(text if re.fullmatch(r"[!-~]+", text) else "")
        is_absolute = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or half an IPv6 address
        raise ValueError(_NOT_A_URL) from None
    if not is_absolute:
        raise ValueError(_NOT_A_URL)
    if "@" in parts.netloc:
        raise ValueError("a URL in a contract must not have credentials; put them into a secret, and name it as `secret`")
    if "?" in text or "#" in text:
        raise ValueError("the URL has a query or a fragment; write what is sent with a request as its `parameters`")
    return text


def _path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]*", text) or text.startswith("//") or re.search(r"[?#\\]|/\.\.?(/|$)", text):
        raise ValueError(
            "a path begins with one '/' and has no query, fragment, blank or '..'; write what is sent with it as `parameters`"
        )
    return text


def _encoding(name: str) -> str:
    try:
        "a".encode(name)
    except (LookupError, ValueError):  # rot13 is a codec, but not of bytes
        raise ValueError(f"'{name}' is not an encoding; write it as Python does, such as utf-8, utf-16 or cp1252") from None
    return codecs.lookup(name).name


def _secret(name: str) -> str:
    """A name below a prefix, which it can't leave."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name):
        raise ValueError("a secret's name is 1 to 63 letters A to Z, digits, '_' and '-', beginning with a letter or a digit")
    return name


Url = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_url)]
SecretName = Annotated[str, AfterValidator(_secret)]
BodyPath = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^.\x00]+(\.[^.\x00]+)*$")]
Parameter = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
# It may be empty, or something that YAML does not read as a text.
_Text = Annotated[str, Field(max_length=200), Written, WithJsonSchema({"type": ["string", "integer", "boolean"]})]


class Delivered(Closed):
    """What files and answers have in common."""

    format: Format = Field(strict=False, description="how records are written")
    contents: Contents = Field(
        Contents.SNAPSHOT,
        strict=False,
        description="`snapshot`: each delivery has every row, and those it lacks are marked deleted; `increment`: it has new "
        "and changed rows",
    )
    version: SqlName | None = Field(
        None,
        description="of increments: the column whose greatest value is the newest state of a row; otherwise the last "
        "delivery has it",
    )
    records: BodyPath | None = Field(
        None,
        description="in JSON: the keys that lead to the array of records, such as `data.rows`; otherwise the document is it",
    )
    delimiter: str = Field(
        ",", min_length=1, max_length=1, pattern=r'^[^\r\n"\x00]$', description="in CSV: what separates fields"
    )
    null_text: _Text = Field("", description="in CSV: the field that stands for NULL")
    encoding: Annotated[str, AfterValidator(_encoding)] = Field("utf-8", description="of CSV and JSON lines")

    @model_validator(mode="after")
    def _options_of_the_format(self) -> Delivered:
        for option, meant in _FORMATS.items():
            if option in self.model_fields_set and self.format not in meant:
                raise ValueError(f"`{option}` belongs to {' and '.join(meant)}, not to {self.format}; remove it")
        if self.version is not None and self.contents is Contents.SNAPSHOT:
            raise ValueError("`version` belongs to increments, since a snapshot replaces all rows; write `contents: increment`")
        return self

    @property
    def form(self) -> RecordForm:
        """How to read the records."""
        return RecordForm(self.format, self.delimiter, self.null_text, self.encoding, self.records)

    @property
    def named(self) -> dict[str, str]:
        """The columns that its options name, by option."""
        return {} if self.version is None else {"version": self.version}


class FileDocument(Delivered):
    """A data set of files, which are put under `dropzone/`, its name and `/` in the landing bucket."""


class PagingDocument(Closed):
    """How an answer leads to its next page."""

    by: Paging = Field(
        strict=False,
        description="`link`: the header Link; `next_url`: a URL in the body; `cursor`: a text in the body, which `parameter` "
        "sends; `offset`: `parameter` counts records; `page`: it counts pages",
    )
    parameter: Parameter | None = Field(None, description="the parameter of a request that says which page is meant")
    at: BodyPath | None = Field(None, description="the keys that lead to the next URL, or to the cursor, in the body")
    first: int = Field(1, ge=0, le=1_000_000, description="of `page`: the number of the first one")
    size: int | None = Field(None, ge=1, le=1_000_000, description="records of a page; `offset` needs it")
    size_parameter: Parameter | None = Field(None, description="the parameter that asks for this many records")

    @model_validator(mode="after")
    def _needs(self) -> PagingDocument:
        needed = _PAGING_NEEDS[self.by]
        allowed = {"by", *needed, "size", "size_parameter"} | ({"first"} if self.by is Paging.PAGE else set())
        for option in needed:
            if getattr(self, option) is None:
                raise ValueError(f"paging by {self.by} needs `{option}`")
        if unfit := sorted(self.model_fields_set - allowed):
            raise ValueError(f"`{unfit[0]}` does not go with paging by {self.by}; remove it")
        if self.size_parameter is not None and self.size is None:
            raise ValueError("`size_parameter` needs `size`, the number that is sent")
        return self


class SinceDocument(Closed):
    """What the next increment begins after."""

    parameter: Parameter = Field(description="the parameter of a request that says so")
    column: SqlName | None = Field(None, description="the column whose greatest value so far is sent")
    at: BodyPath | None = Field(
        None, description="instead of `column`: the keys that lead to it in the body of the last answer"
    )
    first: _Text | None = Field(None, description="what the first request sends; otherwise it leaves the parameter out")

    @model_validator(mode="after")
    def _one_origin(self) -> SinceDocument:
        if (self.column is None) == (self.at is None):
            raise ValueError("`since` needs either `column`, of the data set, or `at`, a place in the body of an answer")
        return self


class RequestDocument(Delivered):
    """A data set of answers of the source's `api`."""

    format: Format = Field(Format.JSON, strict=False, description="how records are written")
    path: Annotated[str, Field(max_length=1000), AfterValidator(_path)] = Field(description="what follows the `url` of the API")
    method: Literal["GET", "POST"] = Field("GET", description="GET, or POST with the parameters as a JSON body")
    parameters: dict[Parameter, Scalar] = Field(default_factory=dict, description="what each request sends")
    paging: PagingDocument = Field(PagingDocument(by=Paging.NONE), description="how an answer leads to its next page")
    since: SinceDocument | None = Field(None, description="of increments: what the next one begins after")

    @model_validator(mode="after")
    def _fits_together(self) -> RequestDocument:
        reads_body = self.paging.by in _BODY_PAGING or (self.since is not None and self.since.at is not None)
        if reads_body and self.format is not Format.JSON:
            raise ValueError(f"`at` is a place in a JSON body, and the format is {self.format}; use another paging or `column`")
        if self.since is not None and self.contents is Contents.SNAPSHOT:
            raise ValueError("`since` asks for a part of the rows; write `contents: increment`, or remove it")
        sent = [self.paging.parameter, self.paging.size_parameter, self.since.parameter if self.since else None]
        names = [*self.parameters, *(name for name in sent if name is not None)]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"the parameter '{repeated[0]}' would be sent with two meanings; remove one")
        return self

    @property
    def named(self) -> dict[str, str]:
        """The columns that its options name, by option."""
        since = self.since.column if self.since is not None else None
        return super().named | ({} if since is None else {"since": since})

    def request(self, api: Api) -> Request:
        """What to ask an API."""
        paging, since = self.paging, self.since
        return Request(
            api=api,
            path=self.path,
            method=self.method,
            parameters=self.parameters,
            pages=Pages(paging.by, paging.parameter, paging.at, paging.first, paging.size, paging.size_parameter),
            since_parameter=since.parameter if since else None,
            since_column=since.column if since else None,
            cursor_at=since.at if since else None,
            first_since=since.first if since else None,
        )


class ApiDocument(Closed):
    """The HTTP API that answers for a source."""

    url: Url = Field(description="what the paths of requests are added to; https, unless its host is on the allow-list")
    authentication: Authentication = Field(
        Authentication.NONE, strict=False, description="how requests authenticate, with the credentials in `secret`"
    )
    secret: SecretName | None = Field(
        None,
        description="the name of a secret below `<installation>/sources/` in Secrets Manager; a contract never holds its value",
    )
    header: Annotated[str, Field(pattern="^[A-Za-z0-9-]+$")] = Field("X-API-Key", description="of `api_key`: the header")
    token_url: Url | None = Field(None, description="of `oauth2`: where client credentials become a token")
    scope: str | None = Field(None, min_length=1, max_length=1000, description="of `oauth2`: what the token is asked for")
    requests_per_minute: int = Field(60, ge=1, le=60_000, description="at most this many")

    @model_validator(mode="after")
    def _needs_of_the_authentication(self) -> ApiDocument:
        kinds = {"header": Authentication.API_KEY, "token_url": Authentication.OAUTH2, "scope": Authentication.OAUTH2}
        for option, kind in kinds.items():
            if option in self.model_fields_set and self.authentication is not kind:
                raise ValueError(f"`{option}` goes with `authentication: {kind}`; remove it")
        if (self.authentication is Authentication.NONE) != (self.secret is None):
            raise ValueError("`authentication` and `secret` need each other; add the missing one, or remove both")
        if self.authentication is Authentication.OAUTH2 and self.token_url is None:
            raise ValueError("`authentication: oauth2` needs `token_url`")
        return self

    @property
    def api(self) -> Api:
        """The API."""
        return Api(**{name: getattr(self, name) for name in type(self).model_fields})
