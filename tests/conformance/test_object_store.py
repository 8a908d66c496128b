from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from io import BytesIO

import pytest

from shared.errors import DependencyDownError
from shared.object_store import ConflictError, ObjectDamagedError, ObjectMissingError, Versioned, put_addressed
from shared.testing import reference
from tests.conformance.conftest import Objects

BODY = b"PAR1 and the rest \x00\xff"


async def test_an_object_stored_under_its_hash_is_read_by_its_reference(objects: Objects) -> None:
    ref = await put_addressed(objects.store, objects.bucket, lambda digest: f"a/b=ç {digest[:4]}.parquet", BODY, row_count=3)
    assert await objects.store.get(ref) == BODY
    assert ref == reference(objects.bucket, f"a/b=ç {ref.sha256[:4]}.parquet", BODY, row_count=3)


async def test_putting_again_changes_nothing(objects: Objects) -> None:
    await objects.store.put(objects.bucket, "key", BODY)
    await objects.store.put(objects.bucket, "key", BODY)
    assert await objects.store.get(reference(objects.bucket, "key", BODY, row_count=0)) == BODY


async def test_an_empty_object_exists(objects: Objects) -> None:
    await objects.store.put(objects.bucket, "empty", b"")
    assert await objects.store.get(reference(objects.bucket, "empty", b"", row_count=0)) == b""


async def test_the_error_of_a_missing_object_says_what_to_do(objects: Objects) -> None:
    with pytest.raises(ObjectMissingError, match=f"'{objects.bucket}/nowhere', which does not exist; restore it and replay"):
        await objects.store.get(reference(objects.bucket, "nowhere", BODY, row_count=1))


@pytest.mark.parametrize("other", [BODY + b"!", BODY[:-1] + b"!"], ids=["longer", "changed"])
async def test_an_object_with_other_bytes_is_never_returned(objects: Objects, other: bytes) -> None:
    await objects.store.put(objects.bucket, "key", other)
    with pytest.raises(ObjectDamagedError, match=r"restore it and replay the dead letters; .* `starlift resend`"):
        await objects.store.get(reference(objects.bucket, "key", BODY, row_count=1))


async def test_a_mutable_object_is_none_until_it_is_created(objects: Objects) -> None:
    assert await objects.store.read(objects.bucket, "state.json") is None
    etag = await objects.store.replace(objects.bucket, "state.json", b"1", expected=None)
    assert await objects.store.read(objects.bucket, "state.json") == Versioned(b"1", etag)


async def test_a_version_can_be_replaced_once(objects: Objects) -> None:
    first = await objects.store.replace(objects.bucket, "state.json", b"1", expected=None)
    second = await objects.store.replace(objects.bucket, "state.json", b"2", expected=first)
    with pytest.raises(ConflictError, match="no longer the version that was read; read it again"):
        await objects.store.replace(objects.bucket, "state.json", b"3", expected=first)
    assert await objects.store.read(objects.bucket, "state.json") == Versioned(b"2", second)


async def test_an_existing_object_cannot_be_created_again(objects: Objects) -> None:
    await objects.store.replace(objects.bucket, "state.json", b"1", expected=None)
    with pytest.raises(ConflictError):
        await objects.store.replace(objects.bucket, "state.json", b"2", expected=None)


async def test_a_deleted_object_cannot_be_replaced(objects: Objects) -> None:
    with pytest.raises(ConflictError):
        await objects.store.replace(objects.bucket, "state.json", b"2", expected='"0123456789abcdef0123456789abcdef"')


async def test_one_of_many_concurrent_writers_wins(objects: Objects) -> None:
    first = await objects.store.replace(objects.bucket, "state.json", b"0", expected=None)
    attempts = [objects.store.replace(objects.bucket, "state.json", b"%d" % n, expected=first) for n in range(1, 9)]
    answers = await asyncio.gather(*attempts, return_exceptions=True)
    (winner,) = [n for n, answer in enumerate(answers, start=1) if isinstance(answer, str)]
    assert all(isinstance(answer, str | ConflictError) for answer in answers)
    current = await objects.store.read(objects.bucket, "state.json")
    assert current is not None
    assert current.body == b"%d" % winner


async def test_keys_are_listed_by_prefix_in_byte_order(objects: Objects) -> None:
    for key in ("a/2", "a/10", "a/é", "a/\U0001f680", "a/\ufb01", "b/1"):
        await objects.store.put(objects.bucket, key, b"")
    assert await objects.store.keys(objects.bucket, "a/") == ["a/10", "a/2", "a/é", "a/\ufb01", "a/\U0001f680"]
    assert await objects.store.keys(objects.bucket, "c") == []


async def test_keys_are_listed_after_a_key_that_need_not_exist(objects: Objects, implementation: str) -> None:
    keys = ["a/1", "a/3", "a/5", "a/é"]
    if implementation == "localstack":
        keys.pop()  # LocalStack compares `after` with the URL-encoded key; AWS with the key
    for key in keys:
        await objects.store.put(objects.bucket, key, b"")
    assert await objects.store.keys(objects.bucket, "a/", after="a/1") == keys[1:]
    assert await objects.store.keys(objects.bucket, "a/", after="a/2") == keys[1:]
    assert await objects.store.keys(objects.bucket, "a/", after="b") == []


async def test_a_listing_has_each_object_s_size_and_last_modification_time(objects: Objects) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    await objects.store.put(objects.bucket, "a/2", b"22")
    await objects.store.put(objects.bucket, "a/1", b"1")
    await objects.store.replace(objects.bucket, "b/1", b"", expected=None)
    listed = await objects.store.listing(objects.bucket, "a/") + await objects.store.listing(objects.bucket, "b")
    assert [(one.key, one.byte_count) for one in listed] == [("a/1", 1), ("a/2", 2), ("b/1", 0)]
    assert all(before <= one.written_at <= datetime.now(UTC) for one in listed)
    assert all(one.written_at.microsecond == 0 for one in listed)
    assert await objects.store.listing(objects.bucket, "c") == []


async def test_every_version_of_an_object_is_listed_and_can_be_read(objects: Objects) -> None:
    await objects.keep_versions()
    for key, body in (("a/2", b"old"), ("a/1", b"one"), ("a/2", b"newer"), ("b/1", b"")):
        await objects.store.put(objects.bucket, key, body)
    await objects.delete("a/1")
    listed = await objects.store.versions(objects.bucket, "a/")
    shown = [(one.key, one.byte_count, one.is_deleted) for one in listed]
    assert shown == [("a/1", 3, True), ("a/2", 3, False), ("a/2", 5, False)]
    assert len({(one.key, one.version_id) for one in listed}) == 3
    bodies = []
    for one in listed:
        file = BytesIO()
        assert await objects.store.download(objects.bucket, one.key, one.version_id, file)
        bodies.append(file.getvalue())
    assert bodies == [b"one", b"old", b"newer"]


async def test_a_tag_replaces_the_tags_of_an_object_and_no_object_is_made_for_one(objects: Objects) -> None:
    await objects.store.put(objects.bucket, "a/1", b"one")
    assert await objects.tags("a/1") == {}
    for value in ("new", "old", "old"):
        await objects.store.tag(objects.bucket, "a/1", "state", value)
    assert await objects.tags("a/1") == {"state": "old"}
    await objects.store.tag(objects.bucket, "a/2", "state", "old")
    assert await objects.store.keys(objects.bucket, "a/") == ["a/1"]


async def test_an_object_in_a_bucket_without_versions_is_listed_as_one(objects: Objects) -> None:
    await objects.store.put(objects.bucket, "a/1", b"old")
    await objects.store.put(objects.bucket, "a/1", b"newer")
    listed = (await objects.store.versions(objects.bucket, "a/"))[-1]
    file = BytesIO()
    assert await objects.store.download(objects.bucket, listed.key, listed.version_id, file)
    assert file.getvalue() == b"newer"


async def test_a_version_that_does_not_exist_is_not_downloaded(objects: Objects) -> None:
    await objects.keep_versions()
    await objects.store.put(objects.bucket, "a/1", b"one")
    (listed,) = await objects.store.versions(objects.bucket, "a/1")
    file = BytesIO()
    assert not await objects.store.download(objects.bucket, "a/2", listed.version_id, file)
    await objects.delete("a/1", listed.version_id)
    assert not await objects.store.download(objects.bucket, "a/1", listed.version_id, file)
    assert not file.getvalue()


async def test_versions_beyond_the_first_page_are_also_listed(objects: Objects) -> None:
    await objects.keep_versions()
    keys = [f"page/{number:04d}" for number in range(1001)]  # S3 lists 1000 a page
    for start in range(0, len(keys), 20):
        await asyncio.gather(*(objects.store.put(objects.bucket, key, b"") for key in keys[start : start + 20]))
    assert [one.key for one in await objects.store.versions(objects.bucket, "page/")] == keys


async def test_a_large_object_is_sent_and_read_in_pieces(objects: Objects) -> None:
    body = bytes(range(256)) * (16 * 4096)
    await objects.store.put(objects.bucket, "large", body)
    assert await objects.store.get(reference(objects.bucket, "large", body, row_count=1)) == body


async def test_keys_beyond_the_first_page_are_also_listed(objects: Objects) -> None:
    keys = [f"page/{number:04d}" for number in range(1001)]  # S3 lists 1000 a page
    for start in range(0, len(keys), 20):
        await asyncio.gather(*(objects.store.put(objects.bucket, key, b"") for key in keys[start : start + 20]))
    assert await objects.store.keys(objects.bucket, "page/") == keys


async def test_the_error_of_a_missing_bucket_names_the_set_up(objects: Objects) -> None:
    store, absent = objects.store, f"{objects.bucket}-absent"
    for attempt in (
        store.put(absent, "key", b""),
        store.read(absent, "key"),
        store.keys(absent, ""),
        store.listing(absent, ""),
        store.versions(absent, ""),
        store.download(absent, "key", "0", BytesIO()),
        store.tag(absent, "key", "state", "old"),
    ):
        with pytest.raises(DependencyDownError, match=r"does not exist.*; rerun the set-up") as caught:
            await attempt
        assert caught.value.dependency == "s3"
