"""Keys of stored objects: a later build must find what an earlier one wrote."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from contracts.objects import BatchKeys, SourceKeys, is_bundle, rows_in

SHA256 = "0123456789abcdef" * 4
KEYS = SourceKeys("shop")
BATCH = KEYS.batch(1_796_004_170_422, 3)
PREFIX = "shop/runs/00000001796004170422/00003/"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (KEYS.state, "shop/state.json"),
        (KEYS.manifest(7), "shop/manifests/00000000000000000007.json"),
        (KEYS.proof(datetime(2026, 11, 1, 9, 30, 5, tzinfo=UTC)), "proofs/shop/20261101T093005Z.json"),
        (KEYS.last_proof, "proofs/shop/last.json"),
        (KEYS.proof_failure, "proofs/shop/failure.json"),
        (KEYS.history, "proofs/shop/history.json"),
        (BATCH.prefix, PREFIX),
        (BATCH.extract("staff", "base", SHA256), f"{PREFIX}staff.base-0123456789abcdef.parquet"),
        (BATCH.bundle(SHA256), f"{PREFIX}bundle-0123456789abcdef.json.gz"),
        (BATCH.key_hashes(SHA256), f"{PREFIX}key_hashes-0123456789abcdef.json.gz"),
        (BATCH.star_rows("dim_staff", SHA256), f"{PREFIX}dim_staff-0123456789abcdef.parquet"),
        (BATCH.quarantine(SHA256), "quarantine/shop/runs/00000001796004170422/00003-0123456789abcdef.jsonl"),
        (str(BATCH.batch_id), "06f01b6f-a6d2-5f6b-8638-05e45f5497d8"),
    ],
)
def test_every_build_makes_the_same_keys(key: str, expected: str) -> None:
    assert key == expected


def test_a_key_names_its_run_and_its_batch() -> None:
    assert KEYS.run_of_manifest(KEYS.manifest(7)) == 7
    assert KEYS.batch_of_quarantine(BATCH.quarantine(SHA256)) == (BATCH.run, BATCH.index)


@pytest.mark.parametrize("key", ["shop/manifests/7.json", "shop/manifests/x.json", "crm/manifests/00000000000000000007.json"])
def test_a_key_that_is_not_a_manifest_of_the_source_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        KEYS.run_of_manifest(key)


@pytest.mark.parametrize("key", ["quarantine/shop/runs/7", "quarantine/shop/runs/x/00000-0.jsonl", "crm/runs/7/00000-0.jsonl"])
def test_a_key_that_is_not_in_the_quarantine_of_the_source_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        KEYS.batch_of_quarantine(key)


def test_the_key_of_an_object_names_its_rows() -> None:
    batch = BatchKeys("shop", 1, 0)
    assert rows_in(batch.star_rows("fact-x", SHA256)) == ("fact-x", SHA256[:16])
    assert rows_in(batch.extract("staff", "partner", SHA256)) == ("staff.partner", SHA256[:16])
    assert rows_in(batch.bundle(SHA256)) == (None, SHA256[:16])
    assert rows_in(batch.key_hashes(SHA256)) is None
    assert is_bundle(batch.bundle(SHA256))
    others = (batch.star_rows("bundle", SHA256), batch.key_hashes(SHA256), batch.rejected_keys(SHA256), "somewhere")
    assert not any(map(is_bundle, others))


def test_keys_of_runs_sort_like_their_numbers() -> None:
    runs = [1, 9, 10, 1_796_004_170_422, 10**13]
    assert sorted(map(KEYS.manifest, reversed(runs))) == [KEYS.manifest(run) for run in runs]
    assert sorted(KEYS.batch(run, 0).quarantine(SHA256) for run in runs) == [
        KEYS.batch(run, 0).quarantine(SHA256) for run in runs
    ]
