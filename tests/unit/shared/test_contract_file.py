from __future__ import annotations

from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
from moto import mock_aws

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


def test_a_contract_is_an_object_in_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "eu-west-2")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="landing", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
        s3.put_object(Bucket="landing", Key="contracts/shop.yaml", Body=contract_text("totesys").encode())
        assert contract_named("s3://landing/contracts/shop.yaml") == CONTRACT
        assert "NoSuchKey" in refusal("s3://landing/contracts/other.yaml")
        assert refusal("s3://landing") == "'s3://landing' is not s3://bucket/key"


def test_the_sentence_about_a_name_says_what_to_write_instead(tmp_path: Path) -> None:
    assert refusal("nothing") == (
        "Starlift ships no contract 'nothing', only totesys; give a file by its path, such as ./nothing.yaml"
    )
    assert refusal("contracts.totesys").endswith("contracts are YAML documents; it is STARLIFT_CONTRACT=totesys now")
    assert refusal("contracts.shop").endswith("contracts are YAML documents; `starlift convert` makes one of a module")
    assert refusal(f"{tmp_path}/no.yaml").startswith(f"'{tmp_path}/no.yaml' can't be read (No such file or directory)")
    assert refusal(str(tmp_path)).startswith(f"'{tmp_path}' can't be read (Is a directory)")
    (tmp_path / "latin.yaml").write_bytes("name: Köln".encode("latin-1"))
    assert refusal(f"{tmp_path}/latin.yaml").endswith("is not UTF-8: byte 7; save it in that encoding")
    (tmp_path / "wrong.yaml").write_text("name: shop\nstars: {}\n")
    assert refusal(f"{tmp_path}/wrong.yaml").startswith("wrong.yaml:1: ")
