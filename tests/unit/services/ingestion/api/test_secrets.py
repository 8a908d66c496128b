"""Where the secret of an API comes from."""

from __future__ import annotations

import pytest

from services.ingestion.api.credentials import secrets_below
from services.ingestion.delivery import UnreadableDeliveryError


async def test_a_secret_may_be_given_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARLIFT_API_SECRET_HELP_DESK", '{"token": "t"}')
    assert await secrets_below("", "eu-west-2")("help-desk") == '{"token": "t"}'


async def test_a_secret_that_nothing_gives_is_missed_with_what_to_set() -> None:
    with pytest.raises(
        UnreadableDeliveryError, match=r"^no secret 'rates' is configured: set STARLIFT_API_SECRET_RATES to the secret"
    ):
        await secrets_below("", "eu-west-2")("rates")


@pytest.mark.parametrize("name", ["../source", "a/b", "", "-"])
async def test_a_name_that_leads_out_of_the_folder_is_refused(name: str) -> None:
    with pytest.raises(UnreadableDeliveryError, match="is not the name of a secret below"):
        await secrets_below("starlift/production/sources/", "eu-west-2")(name)
