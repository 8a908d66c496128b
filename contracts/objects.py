"""Object keys in the landing and the processed bucket, and how a message refers to an object.

Rows are content-addressed: the key of an object ends with the hash of its bytes, so writing twice is writing once, and no
writer can change what another message refers to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

BATCH_NAMESPACE = UUID("5e1f1c1e-57a7-5c4e-8a3a-0d1f7a5e9b21")
# Folders of a bucket that are no source's: a source of such a name would write into them, and its objects expire with theirs.
NO_SOURCES = frozenset({"dead-letters", "dropzone", "files", "proofs", "quarantine"})
SUPERSEDED = ("starlift", "superseded")  # the tag, name and value, of what no truth needs any more: a lifecycle rule expires it
_HASH_DIGITS = 16  # of a SHA-256, in a key
_ROWS = re.compile(rf"/(?:([^/]+)-([0-9a-f]{{{_HASH_DIGITS}}})\.parquet|bundle-([0-9a-f]{{{_HASH_DIGITS}}})\.json\.gz)$")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f]{1,63}$")]  # a source or a table: at most PostgreSQL's 63 bytes


class ObjectRef(BaseModel):
    """An immutable object, as its writer described it. A reader that finds other bytes stops."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: str
    key: str
    byte_count: Annotated[int, Field(ge=0)]
    row_count: Annotated[int, Field(ge=0)]
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class BatchKeys:
    """Keys of the objects of one batch: `index`, from 0, within a run of a source."""

    source: str
    run: int
    index: int

    @property
    def batch_id(self) -> UUID:
        """The batch's id: the same each time it is computed."""
        return uuid5(BATCH_NAMESPACE, f"{self.source}/{self.run}/{self.index}")

    @property
    def prefix(self) -> str:
        """The prefix of the batch's objects, in either bucket."""
        return f"{self.source}/runs/{self.run:020d}/{self.index:05d}/"

    def extract(self, table: str, role: str, sha256: str) -> str:
        """Source rows, in the landing bucket."""
        return f"{self.prefix}{extract_name(table, role)}-{sha256[:_HASH_DIGITS]}.parquet"

    def bundle(self, sha256: str) -> str:
        """All rows of a small batch, in either bucket."""
        return f"{self.prefix}bundle-{sha256[:_HASH_DIGITS]}.json.gz"

    def key_hashes(self, sha256: str) -> str:
        """The hashes of the keys of every table that the run compares, in either bucket."""
        return f"{self.prefix}key_hashes-{sha256[:_HASH_DIGITS]}.json.gz"

    def rejected_keys(self, sha256: str) -> str:
        """The keys of the rows that filters reject, in the processed bucket."""
        return f"{self.prefix}rejected-{sha256[:_HASH_DIGITS]}.json.gz"

    def star_rows(self, table: str, sha256: str) -> str:
        """Remodelled rows of a warehouse table, in the processed bucket."""
        return f"{self.prefix}{table}-{sha256[:_HASH_DIGITS]}.parquet"

    def quarantine(self, sha256: str) -> str:
        """The rows that the warehouse cannot hold, as JSON lines, in the processed bucket."""
        return f"{SourceKeys(self.source).quarantine}{self.run:020d}/{self.index:05d}-{sha256[:_HASH_DIGITS]}.jsonl"


@dataclass(frozen=True, slots=True)
class SourceKeys:
    """Keys of everything that belongs to one source. All are in the landing bucket, except the quarantine."""

    source: str

    def batch(self, run: int, index: int) -> BatchKeys:
        """The keys of one batch."""
        return BatchKeys(self.source, run, index)

    @property
    def state(self) -> str:
        """The one mutable object of a source, changed by compare-and-set only."""
        return f"{self.source}/state.json"

    @property
    def manifests(self) -> str:
        """The prefix of the manifests; their keys sort by run."""
        return f"{self.source}/manifests/"

    def manifest(self, run: int) -> str:
        """The manifest of a run."""
        return f"{self.manifests}{run:020d}.json"

    def run_of_manifest(self, key: str) -> int:
        """The run whose manifest has this key. Raises: ValueError for any other key."""
        run = int(key.removeprefix(self.manifests).removesuffix(".json"))
        if key != self.manifest(run):
            raise ValueError(key)
        return run

    def chunks(self, run: int) -> str:
        """The prefix of the records of a run's chunks; their keys sort by index."""
        return f"{self.source}/chunks/{run:020d}/"

    def chunk(self, run: int, index: int) -> str:
        """The record of the chunk that became batch `index` of a run."""
        return f"{self.chunks(run)}{index:08d}.json"

    @property
    def quarantine(self) -> str:
        """The prefix of the quarantine, in the processed bucket; its keys sort by run."""
        return f"quarantine/{self.source}/runs/"

    def batch_of_quarantine(self, key: str) -> tuple[int, int]:
        """The run, and the index of the batch within it, of a quarantine object. Raises: ValueError for any other key."""
        run, name = key.removeprefix(self.quarantine).split("/")
        return int(run), int(name.partition("-")[0])

    def proof(self, taken_at: datetime) -> str:
        """The proof of a time."""
        return f"proofs/{self.source}/{taken_at:%Y%m%dT%H%M%SZ}.json"

    def proof_report(self, taken_at: datetime) -> str:
        """The page that names the rows that a proof of a time found different."""
        return f"proofs/{self.source}/{taken_at:%Y%m%dT%H%M%SZ}.html"

    @property
    def last_proof(self) -> str:
        """The last proof."""
        return f"proofs/{self.source}/last.json"

    @property
    def proof_failure(self) -> str:
        """Why the last proof failed."""
        return f"proofs/{self.source}/failure.json"

    @property
    def history(self) -> str:
        """Where the checked history begins."""
        return f"proofs/{self.source}/history.json"


def extract_name(table: str, role: str) -> str:
    """The part of an extract's key that names its rows."""
    return f"{table}.{role}"


def rows_in(key: str) -> tuple[str | None, str] | None:
    """The name of an object's rows, or None for a bundle, and the first digits of its hash; None for a key of no rows."""
    found = _ROWS.search(key)
    return None if found is None else (found[1], found[2] or found[3])


def is_bundle(key: str) -> bool:
    """Whether an object is a bundle (contracts/bundles.py)."""
    found = _ROWS.search(key)
    return found is not None and found[1] is None
