"""Where things lie in the buckets, and how a message refers to them.

Rows are content-addressed: the key of an object ends with the hash of its bytes, so writing twice is writing once, and no
writer can change what another message refers to.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

BATCH_NAMESPACE = UUID("5e1f1c1e-57a7-5c4e-8a3a-0d1f7a5e9b21")

_NAMED = re.compile(r"/([^/]+)-([0-9a-f]{16})\.parquet$")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f]{1,63}$")]  # a source or a table: at most PostgreSQL's 63 bytes


class ObjectRef(BaseModel):
    """An immutable object: a reader that finds other bytes than these stops."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: str
    key: str
    byte_count: Annotated[int, Field(ge=0)]
    row_count: Annotated[int, Field(ge=0)]
    sha256: Sha256


def batch_id(source: str, run: int, index: int) -> UUID:
    """The id of the batch `index` (from 0) of a run: the same each time it is computed."""
    return uuid5(BATCH_NAMESPACE, f"{source}/{run}/{index}")


def state_key(source: str) -> str:
    """The one mutable object of a source, changed by compare-and-set only."""
    return f"{source}/state.json"


def manifest_prefix(source: str) -> str:
    """Where a source's manifests lie."""
    return f"{source}/manifests/"


def manifest_key(source: str, run: int) -> str:
    """A run's manifest; keys sort by run."""
    return f"{manifest_prefix(source)}{run:020d}.json"


def run_of_manifest(key: str) -> int:
    """The run whose manifest has this key. Raises: ValueError for any other key."""
    run = int(key.rpartition("/")[2].removesuffix(".json"))
    if key != manifest_key(key.partition("/")[0], run):
        raise ValueError(key)
    return run


def batch_prefix(source: str, run: int, index: int) -> str:
    """Where the rows of a batch lie, in the landing and in the processed bucket."""
    return f"{source}/runs/{run:020d}/{index:05d}/"


def name_in(key: str) -> tuple[str, str] | None:
    """What an object of a batch holds, and how the hash of its bytes begins, as its key says; None for what is no Parquet."""
    found = _NAMED.search(key)
    return None if found is None else (found[1], found[2])


def extract_name(table: str, role: str) -> str:
    """How an extract is called in its key."""
    return f"{table}.{role}"


def extract_key(source: str, run: int, index: int, name: str, sha256: str) -> str:
    """An extract of the landing bucket; `name` tells table and role."""
    return f"{batch_prefix(source, run, index)}{name}-{sha256[:16]}.parquet"


def key_list_key(source: str, run: int, index: int, table: str, sha256: str) -> str:
    """A part of a key list, in either bucket."""
    return f"{batch_prefix(source, run, index)}{table}.keys-{sha256[:16]}.jsonl.gz"


def star_rows_key(source: str, run: int, index: int, table: str, sha256: str) -> str:
    """Remodelled rows of the processed bucket."""
    return f"{batch_prefix(source, run, index)}{table}-{sha256[:16]}.parquet"


def quarantine_key(source: str, run: int, index: int, sha256: str) -> str:
    """The rows of a batch that the warehouse can't hold, as JSON lines, in the processed bucket."""
    return f"{quarantine_prefix(source)}{run:020d}/{index:05d}-{sha256[:16]}.jsonl"


def quarantine_prefix(source: str) -> str:
    """Where a source's quarantine lies; keys sort by run."""
    return f"quarantine/{source}/runs/"


def batch_of_quarantine(key: str) -> tuple[int, int]:
    """The run, and the batch within it, whose rows are in an object of the quarantine. Raises: ValueError for any other key."""
    run, name = key.split("/")[3:5]
    return int(run), int(name.partition("-")[0])


def proof_key(source: str, taken_at: datetime | None = None) -> str:
    """The last proof of a source, or that of a time."""
    return f"proofs/{source}/{'last' if taken_at is None else f'{taken_at:%Y%m%dT%H%M%SZ}'}.json"


def history_key(source: str) -> str:
    """The record of where the checked history of a source begins."""
    return f"proofs/{source}/history.json"


def proof_failure_key(source: str) -> str:
    """The reason why the last proof of a source failed."""
    return f"proofs/{source}/failure.json"
