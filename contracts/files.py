"""What became of deliveries: a record in the landing bucket, outside the drop zone.

Each version of a file has one; of the fetches of an API only the last has, since each asks for what an earlier one did not get.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum, unique
from hashlib import sha256

from pydantic import AwareDatetime, BaseModel

from contracts.datasets import DROP_ZONE

FILES = "files/"  # prefix in the landing bucket


@unique
class Outcome(StrEnum):
    """What became of a file."""

    REFUSED = "refused"  # it changed nothing: the reason says why, and what to do
    TAKEN = "taken"  # by a run
    UNCHANGED = "unchanged"  # it has the bytes of the file before it


class FileRecord(BaseModel, frozen=True, extra="ignore"):
    """What became of one version of a file, or of the last fetch from an API."""

    dataset: str
    key: str  # in the landing bucket; of a fetch, the path of its requests
    version_id: str  # of S3; "null" in a bucket without versions; empty of a fetch
    byte_count: int  # as stored: of a compressed file, the compressed bytes
    written_at: AwareDatetime  # by S3's clock; of a fetch, when it ended
    outcome: Outcome
    reason: str | None = None  # of a file that was refused, and of one that was not taken in full
    run: int | None = None  # that took it
    records: int = 0  # that the run has announced
    bad: int = 0  # records that are in quarantine since they have no key that can be read
    sha256: str | None = None  # of its bytes; None if they were not read to the end
    recorded_at: AwareDatetime


def drop_zone_of(dataset: str) -> str:
    """The prefix of the files of a data set."""
    return f"{DROP_ZONE}{dataset}/"


def records_of(dataset: str) -> str:
    """The prefix of the records about the files of a data set; their keys sort by the time at which a file was written."""
    return f"{FILES}{dataset}/"


def record_key(dataset: str, key: str, version_id: str, written_at: datetime) -> str:
    """The key of the record about one version of a file."""
    name = sha256(f"{key}\0{version_id}".encode()).hexdigest()[:32]
    return f"{records_of(dataset)}{written_at:%Y%m%dT%H%M%SZ}-{name}.json"


def last_fetch_key(dataset: str) -> str:
    """The key of the record about the last fetch of a data set."""
    return f"{records_of(dataset)}last-fetch.json"
