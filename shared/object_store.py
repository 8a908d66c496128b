"""Objects in S3: the port that services use, and S3 behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, Protocol

from botocore.exceptions import ClientError

from contracts.objects import ObjectRef
from shared.aws_errors import aws_errors, error_code
from shared.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

# 412: another version is there. 409: another writer is at work. NoSuchKey: If-Match on an object that is gone.
_CONFLICTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})
_CHUNK = 2**20  # bytes of an object that are held at a time
_GONE = frozenset({"NoSuchKey", "NoSuchVersion"})


# Only a bucket that keeps versions can give an object back; rows can always be read, and remodelled, again.
_RESTORE = (
    "restore it and replay the dead letters; if the bucket keeps no versions, `starlift resend` has remodelled rows written "
    "again, `starlift ingest --full` extracts"
)


class ObjectMissingError(PermanentError):
    """A message refers to an object that does not exist."""


class ObjectDamagedError(PermanentError):
    """An object's bytes are not those that the message referring to it describes."""


class ConflictError(TransientError):
    """Another writer came first. Recovery: read the object again; finding your own bytes there means success."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A mutable object as it was read."""

    body: bytes
    etag: str  # of this version


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it."""

    key: str
    byte_count: int
    written_at: datetime  # when it was last written, in whole seconds


@dataclass(frozen=True, slots=True)
class ListedVersion(Listed):
    """A version of an object as a listing shows it; in a bucket without versions, the object itself."""

    version_id: str  # "null" in a bucket without versions
    is_deleted: bool  # whether the object has been deleted since, so that the version is found by its id alone


class ObjectStore(Protocol):
    """Immutable objects, and a few that change by compare-and-set.

    Every method raises TransientError, DependencyDownError("s3") and PermanentError.
    """

    async def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write an immutable object, whose key names its content: writing it again is harmless."""
        ...

    async def get(self, ref: ObjectRef) -> bytes:
        """The bytes that a message refers to, verified. Raises: ObjectMissingError, ObjectDamagedError."""
        ...

    async def read(self, bucket: str, key: str) -> Versioned | None:
        """The object, or None if there is none."""
        ...

    async def replace(self, bucket: str, key: str, body: bytes, *, expected: str | None) -> str:
        """Write the object if `expected` (None: no object) is still its current version; return the new etag.

        If a request succeeds and its answer is lost, its repetition conflicts with itself: see `replace_ours`.
        Raises: ConflictError.
        """
        ...

    async def keys(self, bucket: str, prefix: str, *, after: str = "") -> list[str]:
        """Every key that starts with `prefix` and sorts after `after`, in the order of their UTF-8 bytes."""
        ...

    async def listing(self, bucket: str, prefix: str) -> list[Listed]:
        """Every object whose key starts with `prefix`, in the order of the keys' UTF-8 bytes."""
        ...

    async def versions(self, bucket: str, prefix: str) -> list[ListedVersion]:
        """Every version of these objects, in the order of the keys' UTF-8 bytes; of one key, in the order of writing."""
        ...

    async def download(self, bucket: str, key: str, version_id: str, file: BinaryIO) -> bool:
        """Append the bytes of a version to a file, in bounded memory; False if there is no such version."""
        ...

    async def tag(self, bucket: str, key: str, name: str, value: str) -> None:
        """Give an object this tag, in place of any others; nothing happens if there is no such object."""
        ...


class S3ObjectStore:
    """Objects in S3."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    async def put(self, bucket: str, key: str, body: bytes) -> None:
        """See ObjectStore."""
        with aws_errors("s3", f"{bucket}/{key}"):
            await self._client.put_object(Bucket=bucket, Key=key, Body=BytesIO(body))  # aiohttp sends large bytes in one go

    async def get(self, ref: ObjectRef) -> bytes:
        """See ObjectStore."""
        found = await self.read(ref.bucket, ref.key)
        return verified(ref, None if found is None else found.body)

    async def read(self, bucket: str, key: str) -> Versioned | None:
        """See ObjectStore."""
        with aws_errors("s3", f"{bucket}/{key}"):
            try:
                answer = await self._client.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error_code(error) == "NoSuchKey":
                    return None
                raise
            async with answer["Body"] as stream:
                return Versioned(await stream.read(), answer["ETag"])

    async def replace(self, bucket: str, key: str, body: bytes, *, expected: str | None) -> str:
        """See ObjectStore."""
        with aws_errors("s3", f"{bucket}/{key}"):
            try:
                if expected is None:
                    answer = await self._client.put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*")
                else:
                    answer = await self._client.put_object(Bucket=bucket, Key=key, Body=body, IfMatch=expected)
            except ClientError as error:
                if error_code(error) in _CONFLICTS:
                    raise conflict(bucket, key) from error
                raise
        return answer["ETag"]

    async def keys(self, bucket: str, prefix: str, *, after: str = "") -> list[str]:
        """See ObjectStore."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, StartAfter=after)
        with aws_errors("s3", f"{bucket}/{prefix}"):
            return [entry["Key"] async for page in pages for entry in page.get("Contents", ())]

    async def listing(self, bucket: str, prefix: str) -> list[Listed]:
        """See ObjectStore."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        with aws_errors("s3", f"{bucket}/{prefix}"):
            return [
                Listed(entry["Key"], entry["Size"], entry["LastModified"])
                async for page in pages
                for entry in page.get("Contents", ())
            ]

    async def versions(self, bucket: str, prefix: str) -> list[ListedVersion]:
        """See ObjectStore."""
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        found, deleted = list[ListedVersion](), set[str]()
        with aws_errors("s3", f"{bucket}/{prefix}"):
            async for page in pages:
                deleted.update(marker["Key"] for marker in page.get("DeleteMarkers", ()) if marker["IsLatest"])
                found += [
                    ListedVersion(one["Key"], one["Size"], one["LastModified"], one["VersionId"], is_deleted=False)
                    for one in page.get("Versions", ())
                ]
        found.reverse()  # S3 lists the newest version of a key first
        found.sort(key=lambda version: version.key.encode())
        return [replace(version, is_deleted=version.key in deleted) for version in found]

    async def download(self, bucket: str, key: str, version_id: str, file: BinaryIO) -> bool:
        """See ObjectStore."""
        with aws_errors("s3", f"{bucket}/{key}"):
            try:
                answer = await self._client.get_object(Bucket=bucket, Key=key, VersionId=version_id)
            except ClientError as error:
                if error_code(error) in _GONE:
                    return False
                raise
            async with answer["Body"] as stream:
                while chunk := await stream.read(_CHUNK):
                    await asyncio.to_thread(file.write, chunk)
        return True

    async def tag(self, bucket: str, key: str, name: str, value: str) -> None:
        """See ObjectStore."""
        with aws_errors("s3", f"{bucket}/{key}"):
            try:
                await self._client.put_object_tagging(
                    Bucket=bucket, Key=key, Tagging={"TagSet": [{"Key": name, "Value": value}]}
                )
            except ClientError as error:
                if error_code(error) not in _GONE:
                    raise


async def put_addressed(
    objects: ObjectStore, bucket: str, key_of: Callable[[str], str], body: bytes, *, row_count: int
) -> ObjectRef:
    """Write an immutable object under the key that `key_of` makes of its hash; return what a message says about it.

    Raises: TransientError, DependencyDownError("s3"), PermanentError.
    """
    digest = await asyncio.to_thread(lambda: sha256(body).hexdigest())  # inline it would delay heartbeats
    ref = ObjectRef(bucket=bucket, key=key_of(digest), byte_count=len(body), row_count=row_count, sha256=digest)
    await objects.put(bucket, ref.key, body)
    return ref


async def replace_ours(
    objects: ObjectStore,
    bucket: str,
    key: str,
    body: bytes,
    *,
    expected: str | None,
    is_ours: Callable[[bytes], bool] = lambda _found: False,
) -> str:
    """As `ObjectStore.replace`, and right even if the answer to an earlier write of ours was lost.

    A conflict with exactly these bytes is success, so no other writer may write the same (put a token in them). A conflict with
    bytes that `is_ours` recognises is an earlier write that had seemed to fail: it is replaced.

    Raises: ConflictError for a conflict with another writer.
    """
    try:
        return await objects.replace(bucket, key, body, expected=expected)
    except ConflictError:
        found = await objects.read(bucket, key)
        if found is not None and found.body == body:
            return found.etag
        if found is None or not is_ours(found.body):
            raise
        return await objects.replace(bucket, key, body, expected=found.etag)


def verified(ref: ObjectRef, body: bytes | None) -> bytes:
    """The bytes, if they are those that `ref` describes. Raises: ObjectMissingError, ObjectDamagedError."""
    place = f"{ref.bucket}/{ref.key}"
    if body is None:
        raise ObjectMissingError(f"a message refers to '{place}', which does not exist; {_RESTORE}")
    digest = sha256(body).hexdigest()
    if (len(body), digest) != (ref.byte_count, ref.sha256):
        raise ObjectDamagedError(
            f"'{place}' has {len(body)} bytes with sha256 {digest}, but the message names {ref.byte_count} bytes with sha256 "
            f"{ref.sha256}; {_RESTORE}"
        )
    return body


def conflict(bucket: str, key: str) -> ConflictError:
    """The error for a compare-and-set that another writer won."""
    return ConflictError(f"'{bucket}/{key}' is no longer the version that was read; read it again")
