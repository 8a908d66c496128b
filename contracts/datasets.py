"""Source tables that are not tables of a database: data sets, which come as files, or as answers of an HTTP API.

docs/decisions/0022-files-and-apis.md says how a run takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

DROP_ZONE = "dropzone/"  # prefix in the landing bucket; nothing of Starlift's is written below it
SNAPSHOT_FOLDER = "snapshot/"  # below a data set of increments: each file in it is a whole snapshot


@unique
class Format(StrEnum):
    """How records are written."""

    CSV = "csv"
    JSON_LINES = "json_lines"
    JSON = "json"
    PARQUET = "parquet"


@unique
class Contents(StrEnum):
    """What a delivery contains: a file, or all pages of an answer."""

    SNAPSHOT = "snapshot"  # every row: those that it lacks are gone
    INCREMENT = "increment"  # some rows, new or changed; those that it lacks stay


@dataclass(frozen=True, slots=True)
class RecordForm:
    """How to read the records of a delivery. gzip and zstd are recognized by their first bytes."""

    format: Format
    delimiter: str = ","  # of CSV
    null: str = ""  # of CSV: the field that stands for NULL
    encoding: str = "utf-8"  # of CSV and JSON lines; a byte order mark is skipped
    path: str | None = None  # in JSON: the keys that lead to the array of records, such as 'data.rows'; None: the whole


@unique
class Paging(StrEnum):
    """How an API leads to the next page."""

    NONE = "none"
    LINK = "link"  # the header Link with rel=next
    NEXT_URL = "next_url"  # a URL in the body, at `at`
    CURSOR = "cursor"  # a text in the body, at `at`, which is sent as `parameter`
    OFFSET = "offset"  # `parameter` counts records
    PAGE = "page"  # `parameter` counts pages, from `first`


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of an answer."""

    kind: Paging = Paging.NONE
    parameter: str | None = None
    at: str | None = None  # the keys that lead to it in the body
    first: int = 1  # page
    size: int | None = None  # records of a page, sent as `size_parameter`; an offset needs it
    size_parameter: str | None = None


@unique
class Authentication(StrEnum):
    """How requests prove who sends them. What they send comes from a secret, never from the contract."""

    NONE = "none"
    BASIC = "basic"  # secret: {"username": …, "password": …}
    BEARER = "bearer"  # secret: {"token": …}
    API_KEY = "api_key"  # secret: {"key": …}, in the header `header`
    OAUTH2 = "oauth2"  # client credentials; secret: {"client_id": …, "client_secret": …}, sent to `token_url`


@dataclass(frozen=True, slots=True)
class Api:
    """An HTTP API. Credentials go to its origin and to that of `token_url`, and nowhere else."""

    url: str  # origin, and what the paths of its requests begin with
    authentication: Authentication = Authentication.NONE
    secret: str | None = None  # its name below <installation>/sources/ in Secrets Manager
    header: str = "X-API-Key"  # of API_KEY
    token_url: str | None = None  # of OAUTH2
    scope: str | None = None  # of OAUTH2
    requests_per_minute: int = 60


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask an API for one data set."""

    api: Api
    path: str
    method: str = "GET"  # or POST, with `parameters` as a JSON body
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)
    pages: Pages = Pages()
    # What an increment begins after: the greatest value of the column `since_column` so far, sent as `since_parameter`; or the
    # text at `cursor_at` in the last body.
    since_parameter: str | None = None
    since_column: str | None = None
    cursor_at: str | None = None
    first_since: str | None = None  # sent by the first request; None: the parameter is left out


@dataclass(frozen=True, slots=True)
class Dataset:
    """How the rows of a source table are delivered."""

    form: RecordForm
    contents: Contents = Contents.SNAPSHOT
    version: str | None = None  # of increments: the column whose greatest value is the newest state; None: the last delivery's
    request: Request | None = None  # None: files in the drop zone
