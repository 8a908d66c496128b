"""Which files of the drop zone wait to be taken."""

from __future__ import annotations

from contracts.files import drop_zone_of, record_key, records_of
from shared.object_store import ListedVersion, ObjectStore


async def waiting_files(objects: ObjectStore, bucket: str, dataset: str) -> list[ListedVersion]:
    """The versions of a data set's files without a record. What a console makes of an empty folder is not a file."""
    versions = await objects.versions(bucket, drop_zone_of(dataset))
    if not versions:
        return []
    oldest = record_key(dataset, "", "", min(version.written_at for version in versions)).rpartition("-")[0]
    recorded = set(await objects.keys(bucket, records_of(dataset), after=oldest))
    return [
        version
        for version in versions
        if not version.key.endswith("/")
        and record_key(dataset, version.key, version.version_id, version.written_at) not in recorded
    ]
