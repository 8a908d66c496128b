from __future__ import annotations

from uuid import uuid4

import pytest
from aiobotocore.session import get_session

from shared.database_url import database_url
from shared.errors import PermanentError
from shared.service import Clients
from tests.localstack import REGION


@pytest.fixture
async def secret_id(clients: Clients | None) -> str:
    if clients is None:
        pytest.skip("secrets have no fake: only the start of a service reads them")
    name = f"starlift-{uuid4().hex[:12]}"
    async with get_session().create_client("secretsmanager", region_name=REGION) as secrets:
        await secrets.create_secret(Name=name, SecretString="postgresql://me:hunter2@db/x\n")
    return name


async def test_a_database_url_is_read_from_its_secret(secret_id: str) -> None:
    url = await database_url("source", url=None, secret_id=secret_id, region=REGION)
    assert url.get_secret_value() == "postgresql://me:hunter2@db/x"
    assert "hunter2" not in repr(url)


async def test_a_secret_that_does_not_exist_asks_for_the_set_up(secret_id: str) -> None:
    with pytest.raises(PermanentError, match=f"there is no secret '{secret_id}-other' in {REGION}; rerun the set-up"):
        await database_url("source", url=None, secret_id=f"{secret_id}-other", region=REGION)
