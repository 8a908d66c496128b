"""S3 in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import md5, sha256

from contracts.objects import ObjectRef
from shared.errors import DependencyDownError
from shared.object_store import Listed, Versioned, conflict, verified
from shared.testing.faults import Faults


class FakeObjectStore:
    """An object store that behaves as S3 does. A test may read and change `buckets`: bytes by bucket and key."""

    def __init__(self, *buckets: str) -> None:
        self.faults = Faults()
        self.buckets: dict[str, dict[str, bytes]] = {bucket: {} for bucket in buckets}
        self._written: dict[tuple[str, str], datetime] = {}

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
        objects, began = self._bucket(bucket), datetime.fromtimestamp(0, UTC)
        keys = await self.keys(bucket, prefix)
        return [Listed(key, len(objects[key]), self._written.get((bucket, key), began)) for key in keys]

    def _write(self, bucket: str, key: str, body: bytes) -> None:
        self._bucket(bucket)[key] = body
        self._written[bucket, key] = datetime.now(UTC).replace(microsecond=0)

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
