from __future__ import annotations

import json
from uuid import uuid4

import pytest
from aiobotocore.session import get_session
from pydantic import SecretStr

from shared.database_url import database_url
from shared.errors import PermanentError
from shared.service import Clients
from tests.fixtures.localstack import REGION

LOGIN = {"username": "me", "password": "p#@/%"}
PLACE = {"engine": "postgres", "host": "db", "port": 5433, "dbname": "my shop"}


@pytest.fixture
async def secret_id(clients: Clients | None) -> str:
    if clients is None:
        pytest.skip("secrets have no fake: only the start of a service reads them")
    name = f"starlift-{uuid4().hex[:12]}"
    async with get_session().create_client("secretsmanager", region_name=REGION) as secrets:
        await secrets.create_secret(Name=name, SecretString="postgresql://me:hunter2@db/x\n")
    return name


async def put(secret_id: str, text: str) -> None:
    async with get_session().create_client("secretsmanager", region_name=REGION) as secrets:
        await secrets.put_secret_value(SecretId=secret_id, SecretString=text)


async def test_a_database_url_is_read_from_its_secret(secret_id: str) -> None:
    url = await database_url("source", url=None, secret_id=secret_id, region=REGION)
    assert url.get_secret_value() == "postgresql://me:hunter2@db/x"
    assert "hunter2" not in repr(url)


@pytest.mark.parametrize(
    ("secret", "place", "expected"),
    [
        (LOGIN | PLACE, None, "postgresql://{me}@db:5433/my%20shop?sslmode=verify-full"),
        (LOGIN | {"host": "::1"}, None, "postgresql://{me}@[::1]:5432/me?sslmode=verify-full"),
        (LOGIN, "postgresql://h:1/x?sslmode=require", "postgresql://{me}@h:1/x?sslmode=require"),
        (LOGIN | PLACE, "postgresql://h:1/x", "postgresql://{me}@h:1/x?sslmode=verify-full"),
        (LOGIN | PLACE, "postgresql://?sslmode=prefer", "postgresql://{me}@db:5433/my%20shop?sslmode=prefer"),
        (LOGIN, "postgresql:///x?host=/run&sslmode=disable", "postgresql://{me}@/x?host=/run&sslmode=disable"),
        (LOGIN | PLACE, "postgresql://other:pw@h/x", "postgresql://other:pw@h/x"),
    ],
)
async def test_a_secret_may_be_the_json_that_aws_creates(
    secret_id: str, secret: dict[str, object], place: str | None, expected: str
) -> None:
    await put(secret_id, json.dumps(secret))
    given = SecretStr(place) if place else None
    url = await database_url("source", url=given, secret_id=secret_id, region=REGION)
    assert url.get_secret_value() == expected.format(me="me:p%23%40%2F%25")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(LOGIN), "has no host; set STARLIFT_SOURCE_URL to postgresql://host:port/database"),
        ('{"username": "me", "password": "p#@/%"', "can't be read; it should be a URL, or JSON with username, password, host"),
        (json.dumps(PLACE), "can't be read; it should be a URL, or JSON with username, password, host, port and dbname"),
    ],
)
async def test_an_incomplete_json_secret_is_refused_without_showing_its_password(
    secret_id: str, text: str, expected: str
) -> None:
    await put(secret_id, text)
    with pytest.raises(PermanentError, match=f"^the secret of the source database {expected}") as caught:
        await database_url("source", url=None, secret_id=secret_id, region=REGION)
    assert "p#@" not in f"{caught.value} {caught.value.__cause__}"


async def test_the_error_of_a_missing_secret_names_the_set_up(secret_id: str) -> None:
    with pytest.raises(PermanentError, match=f"secret '{secret_id}-other' does not exist in {REGION}; rerun the set-up"):
        await database_url("source", url=None, secret_id=f"{secret_id}-other", region=REGION)
