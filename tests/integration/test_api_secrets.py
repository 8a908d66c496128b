"""The secret of an API in Secrets Manager: below the installation's sources, and read again when the server refuses it."""

from __future__ import annotations

import pytest
from aiobotocore.session import get_session

from contracts.datasets import Api, Authentication
from services.ingestion.api.credentials import Credentials, secrets_below
from services.ingestion.delivery import UnreadableDeliveryError
from shared.errors import ServerBusyError
from tests.fixtures.localstack import REGION

PREFIX = "starlift/production/sources/"
RATES = Api("https://rates.example", Authentication.BEARER, "rates")


@pytest.fixture
def secrets_manager(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)


async def store(name: str, text: str) -> None:
    async with get_session().create_client("secretsmanager", region_name=REGION) as secrets:
        try:
            await secrets.create_secret(Name=name, SecretString=text)
        except secrets.exceptions.ResourceExistsException:
            await secrets.put_secret_value(SecretId=name, SecretString=text)


async def test_a_rotated_secret_is_used_once_the_old_one_is_forgotten(secrets_manager: None) -> None:
    await store(f"{PREFIX}rates", '{"token": "old"}')
    credentials = Credentials(RATES, secrets_below(PREFIX, REGION))
    assert await credentials.headers() == {"Authorization": "Bearer old"}
    await store(f"{PREFIX}rates", '{"token": "new"}')
    assert await credentials.headers() == {"Authorization": "Bearer old"}
    credentials.forget()
    assert await credentials.headers() == {"Authorization": "Bearer new"}


async def test_a_secret_that_does_not_exist_refuses_the_fetch(secrets_manager: None) -> None:
    with pytest.raises(UnreadableDeliveryError, match=f"secret '{PREFIX}none' does not exist"):
        await secrets_below(PREFIX, REGION)("none")


async def test_an_outage_of_secrets_manager_costs_no_attempt(secrets_manager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ServerBusyError, match="secretsmanager can't be reached"):
        await secrets_below(PREFIX, REGION)("rates")
