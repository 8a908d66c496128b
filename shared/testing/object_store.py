"""S3 in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import md5, sha256
from typing import BinaryIO

from contracts.objects import ObjectRef
from shared.clock import utc_now
from shared.errors import DependencyDownError
from shared.object_store import Listed, ListedVersion, Versioned, conflict, verified
from shared.testing.faults import Faults

_BEGAN = datetime.fromtimestamp(0, UTC)


class FakeObjectStore:
    """An object store that behaves as S3 does, and keeps versions.

    A test may read and change `buckets`: bytes by bucket and key. What it puts there itself has one version.
    """

    def __init__(self, *buckets: str) -> None:
        self.faults = Faults()
        self.now: Callable[[], datetime] = utc_now  # when objects are written
        self.buckets: dict[str, dict[str, bytes]] = {bucket: {} for bucket in buckets}
        self.tags: dict[tuple[str, str], dict[str, str]] = {}  # by bucket and key
        self._written: dict[tuple[str, str], datetime] = {}
        self._versions: dict[tuple[str, str], list[tuple[datetime, bytes]]] = {}  # in the order of writing

    async def put(self, bucket: str, key: str, body: bytes) -> None:
        """See ObjectStore."""
        async with self.faults.call("put"):
            self._write(bucket, key, body)

    async def get(self, ref: ObjectRef) -> bytes:
        """See ObjectStore."""
        async with self.faults.call("get"):
            return verified(ref, self._bucket(ref.bucket).get(ref.key))

    async def read(self, bucket: str, key: str) -> Versioned | None:
        """See ObjectStore."""
        async with self.faults.call("read"):
            body = self._bucket(bucket).get(key)
        return None if body is None else Versioned(body, _etag(body))

    async def replace(self, bucket: str, key: str, body: bytes, *, expected: str | None) -> str:
        """See ObjectStore."""
        async with self.faults.call("replace"):
            current = self._bucket(bucket).get(key)
            if (None if current is None else _etag(current)) != expected:
                raise conflict(bucket, key)
            self._write(bucket, key, body)
        return _etag(body)

    async def keys(self, bucket: str, prefix: str, *, after: str = "") -> list[str]:
        """See ObjectStore."""
        async with self.faults.call("keys"):
            found = [key for key in self._bucket(bucket) if key.startswith(prefix) and key.encode() > after.encode()]
        return sorted(found, key=str.encode)

    async def listing(self, bucket: str, prefix: str) -> list[Listed]:
        """See ObjectStore. What a test puts into `buckets` itself counts as written in 1970."""
        objects = self._bucket(bucket)
        keys = await self.keys(bucket, prefix)
        return [Listed(key, len(objects[key]), self._written.get((bucket, key), _BEGAN)) for key in keys]

    async def versions(self, bucket: str, prefix: str) -> list[ListedVersion]:
        """See ObjectStore. The id of a version is its number."""
        async with self.faults.call("versions"):
            there = {key: 0 for place, key in self._versions if place == bucket} | dict.fromkeys(self._bucket(bucket), 0)
        return [
            ListedVersion(key, len(body), at, str(number), is_deleted=key not in self._bucket(bucket))
            for key in sorted(there, key=str.encode)
            if key.startswith(prefix)
            for number, (at, body) in enumerate(self._versions_of(bucket, key))
        ]

    async def download(self, bucket: str, key: str, version_id: str, file: BinaryIO) -> bool:
        """See ObjectStore."""
        async with self.faults.call("download"):
            known = dict(enumerate(self._versions_of(bucket, key)))
            if (found := known.get(int(version_id))) is None:
                return False
            file.write(found[1])
        return True

    async def tag(self, bucket: str, key: str, name: str, value: str) -> None:
        """See ObjectStore."""
        async with self.faults.call("tag"):
            if key in self._bucket(bucket):
                self.tags[bucket, key] = {name: value}

    def delete(self, bucket: str, key: str, version_id: str | None = None) -> None:
        """Delete an object, which leaves its versions, or one version for good, and with the last one the object."""
        versions = self._versions.get((bucket, key), [])
        if version_id is not None:
            del versions[int(version_id)]
        if version_id is None or not versions:
            self._bucket(bucket).pop(key, None)

    def _versions_of(self, bucket: str, key: str) -> list[tuple[datetime, bytes]]:
        there = self._bucket(bucket).get(key)
        return self._versions.get((bucket, key)) or ([] if there is None else [(_BEGAN, there)])

    def _write(self, bucket: str, key: str, body: bytes) -> None:
        now = self.now().replace(microsecond=0)
        self._bucket(bucket)[key] = body
        self.tags.pop((bucket, key), None)
        self._written[bucket, key] = now
        self._versions.setdefault((bucket, key), []).append((now, body))

    def _bucket(self, bucket: str) -> dict[str, bytes]:
        try:
            return self.buckets[bucket]
        except KeyError:
            raise DependencyDownError("s3", f"'{bucket}' does not exist; rerun the set-up") from None


def _etag(body: bytes) -> str:
    """An etag as S3 makes it: of the content, so equal bytes are equal versions."""
    return f'"{md5(body, usedforsecurity=False).hexdigest()}"'


def reference(bucket: str, key: str, body: bytes, *, row_count: int) -> ObjectRef:
    """What a message would say about an object of these bytes, whether or not there is one."""
    return ObjectRef(bucket=bucket, key=key, byte_count=len(body), row_count=row_count, sha256=sha256(body).hexdigest())
