"""What travels over the queues: CloudEvents 1.0 in structured JSON, one closed union, no row ever.

Commands are imperative and go to the service that obeys them; events are past tense and report what has happened. A model
never changes once it is released: a change is a new version, and `upcast` leads from the old one to it.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum, unique
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contracts.objects import Name, ObjectRef, Sha256
from contracts.upcasts import upcast

MESSAGE_BYTES_MAXIMUM = 1024 * 1024  # SQS, since August 2025
TYPE_PATTERN = re.compile(r"^starlift\.(?P<name>[a-z_]+)\.v(?P<version>[1-9][0-9]{0,3})$")


class UndecodableMessageError(ValueError):
    """The body is not a message of ours. Recovery: a person looks at the dead letter."""


class NewerMessageError(ValueError):
    """The message is of a later version than this build knows. Recovery: wait, a deployment is under way."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Event(_Closed):
    """The CloudEvents attributes that all messages share."""

    specversion: Literal["1.0"] = "1.0"
    id: UUID  # of a message about a batch: derived from the batch, so that one that is sent twice has one id
    source: str  # who sent it, such as starlift/loading
    time: AwareDatetime  # when it was made, by the sender's clock
    datacontenttype: Literal["application/json"] = "application/json"
    # W3C Trace Context. A scheduler can't make one up; the receiver then opens a trace.
    traceparent: Annotated[str, Field(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")] | None = None
    causationid: UUID | None = None  # the id of the message that led to this one


@unique
class Mode(StrEnum):
    """What a run reads."""

    CHANGES = "changes"  # what changed since the horizon of the run before
    FULL = "full"  # every row


@unique
class Trigger(StrEnum):
    """Who asked for a run. A scheduled request that a run has already answered is dropped, an operator's never is."""

    SCHEDULE = "schedule"
    OPERATOR = "operator"


class Snapshot(_Closed):
    """The source snapshot that a batch was read in."""

    taken_at: AwareDatetime  # by the source's clock
    horizon: Annotated[int, Field(ge=3)]  # pg_snapshot_xmin, in 64 bits: every transaction below it had ended
    wal_position: str  # a pg_lsn as text; 0/0 if the server withholds it


@unique
class Role(StrEnum):
    """Why rows are in a batch."""

    BASE = "base"  # to be remodelled
    PARTNER = "partner"  # to be joined only


class Extract(_Closed):
    """Rows of one source table in the landing bucket."""

    table: Name  # of the source
    role: Role
    object: ObjectRef  # Parquet, or a bundle: the same object then for all tables, with the row count of this one
    whole_run: Annotated[int, Field(ge=1)] | None = None  # of a data set: the last run up to this one with a whole snapshot


class StarRows(_Closed):
    """Rows of one warehouse table in the processed bucket."""

    table: Name  # of the warehouse
    object: ObjectRef  # as of an Extract
    whole_run: Annotated[int, Field(ge=1)] | None = None  # as of the Extract that the rows are made from


class LoadedTable(_Closed):
    """How many rows of one warehouse table a batch merged."""

    table: Name  # of the warehouse
    row_count: Annotated[int, Field(ge=0)]


class _BatchData(_Closed):
    """Which batch."""

    source_name: Name  # STARLIFT_SOURCE_NAME of the ingestion that read it
    run: Annotated[int, Field(ge=1)]
    batch_id: UUID  # derived from source, run and index; a replay of the quarantine has an id of its own
    index: Annotated[int, Field(ge=0)]  # within its run, from 0
    is_last: bool  # whether the run has no later batch
    snapshot: Snapshot

    def head(self) -> dict[str, Any]:
        """The fields that name the batch, as keyword arguments for the next service's message about it."""
        return {name: getattr(self, name) for name in _BatchData.model_fields}


class RowsOf(_Closed):
    """Rows of one source table, by their primary keys."""

    table: Name  # of the source
    keys: tuple[tuple[int | str, ...], ...]  # the columns of each key; what is not a whole number is a text


class IngestSourceData(_Closed):
    """Which source to read, and how."""

    source_name: Name
    mode: Mode = Mode.CHANGES
    trigger: Trigger
    compare_keys: bool = False  # also find what was deleted, although a comparison is not due
    believe_empty: bool = False  # treat an empty source table as really empty: mark all its rows as deleted
    reread: tuple[RowsOf, ...] = ()  # also read these rows, although they did not change; those that don't exist are skipped


class LookUpKeysData(_Closed):
    """Rows of the warehouse that the source may have deleted."""

    source_name: Name
    rows: tuple[RowsOf, ...]
    believe_empty: bool = False  # a source table without rows is really empty: every key asked for is gone


class KeyRange(_Closed):
    """The rows of one source table whose keys are above `after` and not above `until`, in the order of the table's key."""

    after: tuple[int | str, ...] | None = None  # as in RowsOf; None: from the first row
    until: tuple[int | str, ...] | None = None  # None: to the last row


class ExtractChunkData(_Closed):
    """A part of one table, and the snapshot that it belongs to."""

    source_name: Name
    run: Annotated[int, Field(ge=1)]
    index: Annotated[int, Field(ge=0)]  # of the batch that the rows become
    contract: str  # the fingerprint of the contract that the run reads by
    snapshot: Snapshot  # of the run
    next_xid: Annotated[int, Field(ge=3)]  # the first transaction that the snapshot does not know: tells it from another
    exported: str  # the name under which PostgreSQL lets others open the snapshot, while the run holds it open
    table: Name  # of the source
    rows: KeyRange
    within: KeyRange = KeyRange()  # the range that the run cut to get this one: how a later run finds out what is missing


class BatchIngestedData(_BatchData):
    """Rows of one snapshot are in the landing bucket, with their partners."""

    extracts: tuple[Extract, ...]
    hashes: ObjectRef | None = None  # KeyHashes of the rows that the run did not read, of each table whose keys it compares
    gone: tuple[RowsOf, ...] = ()  # rows that the run looked up and did not find
    answers: UUID | None = None  # the id of the LookUpKeys command that is answered with this batch


class BatchRemodelledData(_BatchData):
    """The star rows of one batch are in the processed bucket."""

    tables: tuple[StarRows, ...]
    hashes: ObjectRef | None = None  # as in the BatchIngested, copied to the processed bucket
    gone: tuple[RowsOf, ...] = ()  # as in the BatchIngested: of source tables
    answers: UUID | None = None  # as in the BatchIngested
    quarantine: ObjectRef | None = None  # the rows that the warehouse can't hold, as JSON lines
    rejected: ObjectRef | None = None  # RejectedKeys: the rows that filters of the warehouse's tables leave out
    landed: tuple[Sha256, ...] = ()  # of data sets: the hashes of the extracts that the rows are made from


class BatchLoadedData(_BatchData):
    """One batch is in the warehouse. The transaction that merged its rows writes this into the ledger."""

    tables: tuple[LoadedTable, ...]
    quarantined: Annotated[int, Field(ge=0)]  # how many rows of the batch are in quarantine
    landed: tuple[Sha256, ...] = ()  # as in the BatchRemodelled: the ledger's own record of what was delivered


class IngestSource(_Event):
    """Command, to ingestion."""

    type: Literal["starlift.ingest_source.v2"] = "starlift.ingest_source.v2"
    data: IngestSourceData


class LookUpKeys(_Event):
    """Command, from loading to ingestion: say which of these rows the source does not have. It may be lost or repeated."""

    type: Literal["starlift.look_up_keys.v1"] = "starlift.look_up_keys.v1"
    data: LookUpKeysData


class ExtractChunk(_Event):
    """Command, from the run of an ingestion task to all of them: extract a part of a large table in the run's snapshot."""

    type: Literal["starlift.extract_chunk.v1"] = "starlift.extract_chunk.v1"
    data: ExtractChunkData


class BatchIngested(_Event):
    """Event, from ingestion to remodelling."""

    type: Literal["starlift.batch_ingested.v5"] = "starlift.batch_ingested.v5"
    data: BatchIngestedData


class BatchRemodelled(_Event):
    """Event, from remodelling to loading."""

    type: Literal["starlift.batch_remodelled.v6"] = "starlift.batch_remodelled.v6"
    data: BatchRemodelledData


class BatchLoaded(_Event):
    """Event, from loading, for readers of the ledger."""

    type: Literal["starlift.batch_loaded.v2"] = "starlift.batch_loaded.v2"
    data: BatchLoadedData


_OneOf = IngestSource | LookUpKeys | ExtractChunk | BatchIngested | BatchRemodelled | BatchLoaded
MESSAGE_MODELS = get_args(_OneOf)
Message = Annotated[_OneOf, Field(discriminator="type")]
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Message)


def message_type(model: type[BaseModel]) -> str:
    """The CloudEvents `type` of a message model."""
    return str(model.model_fields["type"].default)


KNOWN_TYPES = frozenset(message_type(model) for model in MESSAGE_MODELS)


def encode(message: Message) -> str:
    """The body of a message."""
    return message.model_dump_json(exclude_none=True)


def decode(body: str) -> Message:
    """The message in a body, as of this build's version. Raises: UndecodableMessageError, NewerMessageError."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UndecodableMessageError("the body is not JSON; Starlift does not send such messages") from error
    if not isinstance(document, dict):
        raise UndecodableMessageError(f"the body is a JSON {type(document).__name__}, not an object")
    try:
        document = upcast(document)
        _require_known(str(document.get("type")))
        return _ADAPTER.validate_json(json.dumps(document))
    except ValidationError as error:
        raise UndecodableMessageError(_explain(error)) from error
    except RecursionError as error:
        raise UndecodableMessageError("the body is nested too deeply; Starlift does not send such messages") from error


def _require_known(kind: str) -> None:
    if kind in KNOWN_TYPES:
        return
    match = TYPE_PATTERN.match(kind)
    versions = [
        int(found["version"])
        for known in KNOWN_TYPES
        if match and (found := TYPE_PATTERN.match(known)) and found["name"] == match["name"]
    ]
    if match and versions and int(match["version"]) > max(versions):
        raise NewerMessageError(f"'{_excerpt(kind)}' is newer than version {max(versions)}, which this build knows")
    raise UndecodableMessageError(f"the type '{_excerpt(kind)}' is not one of {sorted(KNOWN_TYPES)}")


def _explain(error: ValidationError) -> str:
    """Where a document breaks its model, without the values: they may be anything."""
    details = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{_excerpt('.'.join(map(str, one['loc'][1:]))) or 'document'}: {one['msg']}" for one in details[:5])


def _excerpt(text: str) -> str:
    """The beginning of a sender's text without lone surrogates, which JSON escapes allow and UTF-8 can't encode."""
    return text[:80].encode(errors="backslashreplace").decode()
