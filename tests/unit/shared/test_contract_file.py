from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

from contracts.tables import ContractError
from shared.contract_file import contract_named, contract_text
from tests.fixtures.totesys import CONTRACT


def refusal(name: str) -> str:
    with pytest.raises(ContractError) as caught:
        contract_named(name)
    return str(caught.value)


def test_a_contract_is_a_file_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a shop.yaml"
    path.write_text(contract_text("totesys"), encoding="utf-8")
    assert contract_named(str(path)) == CONTRACT
    monkeypatch.chdir(tmp_path)
    assert contract_named("a shop.yaml") == CONTRACT


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 with the empty, versioned bucket `landing`."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "eu-west-2")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="landing", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
        client.put_bucket_versioning(Bucket="landing", VersioningConfiguration={"Status": "Enabled"})
        yield client


def test_a_contract_is_an_object_in_s3(s3: Any) -> None:
    s3.put_object(Bucket="landing", Key="contracts/shop.yaml", Body=contract_text("totesys").encode())
    assert contract_named("s3://landing/contracts/shop.yaml") == CONTRACT
    assert "NoSuchKey" in refusal("s3://landing/contracts/other.yaml")
    assert refusal("s3://landing") == "'s3://landing' is not s3://bucket/key"


def test_a_name_with_a_version_keeps_its_document_when_the_object_is_replaced(s3: Any) -> None:
    first = s3.put_object(Bucket="landing", Key="shop.yaml", Body=contract_text("totesys").encode())["VersionId"]
    s3.put_object(Bucket="landing", Key="shop.yaml", Body=b"name: shop")
    assert contract_named(f"s3://landing/shop.yaml?versionId={first}") == CONTRACT
    assert contract_text("s3://landing/shop.yaml") == "name: shop"


def test_a_missing_permission_is_one_sentence_without_a_key(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    version = s3.put_object(Bucket="landing", Key="shop.yaml", Body=b"name: shop")["VersionId"]
    iam = boto3.client("iam")
    iam.create_user(UserName="task")
    key = iam.create_access_key(UserName="task")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    refused = set_initial_no_auth_action_count(0)(refusal)(f"s3://landing/shop.yaml?versionId={version}")
    assert "AccessDenied" in refused
    assert refused.endswith("; upload it, or allow s3:GetObjectVersion on it")
    assert not [secret for secret in (key["AccessKeyId"], key["SecretAccessKey"]) if secret in refused]


def test_the_sentence_about_a_name_says_what_to_write_instead(tmp_path: Path) -> None:
    assert refusal("nothing") == (
        "Starlift ships no contract 'nothing', only exchange_rates, totesys; give a file by its path, such as ./nothing.yaml"
    )
    assert refusal("contracts.totesys").endswith("contracts are YAML documents; it is STARLIFT_CONTRACT=totesys now")
    assert refusal("contracts.shop").endswith("contracts are YAML documents; `starlift convert` makes one of a module")
    assert refusal(f"{tmp_path}/no.yaml").startswith(f"'{tmp_path}/no.yaml' can't be read (No such file or directory)")
    assert refusal(str(tmp_path)).startswith(f"'{tmp_path}' can't be read (Is a directory)")
    (tmp_path / "latin.yaml").write_bytes("name: Köln".encode("latin-1"))
    assert refusal(f"{tmp_path}/latin.yaml").endswith("is not UTF-8: byte 7; save it in that encoding")
    (tmp_path / "wrong.yaml").write_text("name: shop\nstars: {}\n")
    assert refusal(f"{tmp_path}/wrong.yaml").startswith("wrong.yaml:1: ")
