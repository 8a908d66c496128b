from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import Field, SecretStr, ValidationError

from shared.database_url import database_url
from shared.errors import PermanentError
from shared.settings import ServiceSettings, explained
from tests.fixtures.totesys import CONTRACT

ENVIRONMENT = {
    "STARLIFT_SERVICE": "loading",
    "STARLIFT_REGION": "eu-west-2",
    "STARLIFT_QUEUE_URL": "https://sqs/1/loading",
    "STARLIFT_DEAD_LETTER_URL": "https://sqs/1/loading-dlq",
    "STARLIFT_LANDING_BUCKET": "landing",
    "STARLIFT_PROCESSED_BUCKET": "processed",
    "STARLIFT_SLOTS": "2",
    "STARLIFT_HANDLER_LIMIT_S": "900",
}


class SecretSettings(ServiceSettings):
    database: SecretStr = Field(min_length=100)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def complaint(settings: type[ServiceSettings] = ServiceSettings) -> str:
    with pytest.raises(ValidationError) as caught:
        settings()
    return explained(caught.value, settings)


def test_settings_in_seconds_are_read_as_timedeltas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("starlift_poll_wait_s", "2.5")
    settings = ServiceSettings()
    assert settings.handler_limit == timedelta(minutes=15)
    assert settings.poll_wait == timedelta(seconds=2.5)
    assert settings.visibility_timeout == timedelta(seconds=60)


def test_the_contract_is_the_shipped_one() -> None:
    assert ServiceSettings().contract == CONTRACT


def test_settings_can_be_passed_by_field_name() -> None:
    assert ServiceSettings(slots=5, drain_budget=timedelta(seconds=30)).drain_budget == timedelta(seconds=30)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"DRAIN_BUDGET_S": "110"}, "STARLIFT_DRAIN_BUDGET_S=110 and 15 to hand messages back must fit into"),
        ({"STOP_TIMEOUT_S": "30"}, "STARLIFT_STOP_TIMEOUT_S=30; lower the budget, or raise the platform's stop timeout"),
        ({"ATTEMPTS": "10"}, "STARLIFT_MAX_RECEIVE_COUNT=10 must be above STARLIFT_ATTEMPTS=10"),
        ({"HANDLER_LIMIT_S": "42301"}, "STARLIFT_HANDLER_LIMIT_S=42301 must be above 0 and at most 42300"),
        ({"DEFER_LIMIT_S": "900"}, "STARLIFT_DEFER_LIMIT_S=900 must be above 900, the longest deferral"),
        ({"VISIBILITY_TIMEOUT_S": "9"}, "STARLIFT_VISIBILITY_TIMEOUT_S=9 must be from 10 to 900"),
        ({"VISIBILITY_TIMEOUT_S": "901"}, "from 10 to 900: a longer one can't be renewed within SQS's 12 hours; 60 suits most"),
        ({"POLL_WAIT_S": "21"}, "STARLIFT_POLL_WAIT_S=21 must be from 1 to 20"),
        ({"POLL_WAIT_S": "0"}, "STARLIFT_POLL_WAIT_S=0 must be from 1 to 20"),
        ({"POLL_WAIT_S": "10", "DRAIN_BUDGET_S": "5"}, "at most STARLIFT_DRAIN_BUDGET_S=5: a stop waits"),
        ({"SHARED_QUEUE_URL": "https://sqs/1/chunks"}, "STARLIFT_SHARED_DEAD_LETTER_URL belong together: set both, or neither"),
        ({"SLOTS": "0"}, "STARLIFT_SLOTS=0 is invalid: Input should be greater than or equal to 1"),
        ({"HANDLER_LIMIT_S": "1h"}, "STARLIFT_HANDLER_LIMIT_S=1h is invalid: it must be a number of seconds"),
        ({"HANDLER_LIMIT_S": "nan"}, "STARLIFT_HANDLER_LIMIT_S=nan is invalid: it must be a number of seconds"),
        (
            {"CONTRACT": "nothing"},
            "STARLIFT_CONTRACT=nothing is invalid: Starlift ships no contract 'nothing', only exchange_rates, totesys; ",
        ),
    ],
)
def test_an_invalid_setting_is_reported_with_its_values_and_what_to_do(
    changes: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(f"STARLIFT_{name}", value)
    assert expected in complaint()


def test_all_invalid_settings_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARLIFT_ATTEMPTS", "10")
    monkeypatch.setenv("STARLIFT_DRAIN_BUDGET_S", "110")
    assert complaint().count("; raise the queue's") + complaint().count("; lower the budget") == 2


def test_a_missing_setting_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARLIFT_QUEUE_URL")
    monkeypatch.delenv("STARLIFT_HANDLER_LIMIT_S")
    assert "STARLIFT_QUEUE_URL is missing; set it" in complaint()
    assert "STARLIFT_HANDLER_LIMIT_S is missing; set it" in complaint()


def test_a_secret_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARLIFT_DATABASE", "postgresql://me:hunter2@db/x")
    assert "STARLIFT_DATABASE is invalid" in complaint(SecretSettings)
    assert "hunter2" not in complaint(SecretSettings)


async def test_a_database_url_from_the_environment_is_used_unchanged() -> None:
    url = SecretStr("postgresql://me@db/x")
    assert await database_url("source", url=url, secret_id=None, region="eu-west-2") == url


async def test_a_secret_without_a_region_names_the_setting() -> None:
    with pytest.raises(PermanentError, match="no region to read secret 'x' in: set STARLIFT_REGION"):
        await database_url("source", url=None, secret_id="x", region="")  # noqa: S106 (it is a name)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, "no source database configured: set STARLIFT_SOURCE_URL or STARLIFT_SOURCE_SECRET"),
        (SecretStr("mysql://me:hunter2@db"), "the source database's URL can't be read; it should look like postgresql://"),
    ],
)
async def test_a_database_that_cannot_be_found_is_reported_without_its_password(url: SecretStr | None, expected: str) -> None:
    with pytest.raises(PermanentError) as caught:
        await database_url("source", url=url, secret_id=None, region="eu-west-2")
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)
