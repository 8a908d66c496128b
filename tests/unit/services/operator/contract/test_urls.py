"""A URL of a command line never holds a password; the environment, a file or a prompt does."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from services.operator.contract.urls import chosen_url, urls_of_others
from services.operator.errors import UsageError
from shared.postgres_url import parse_url
from tests.fixtures.several_sources import SEVERAL
from tests.fixtures.small_contract import SHOP

VARIABLES = [f"STARLIFT_{up}{name}_URL" for up in ("", "UP_") for name in ("SOURCE", "WAREHOUSE")]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def never(prompt: str) -> str:
    raise AssertionError(prompt)


def password_of(option: str | None, typed: str | None = None) -> str | None:
    """The password of the source's URL, where a person types `typed`."""
    url = chosen_url("source", option, never if typed is None else lambda _: typed)
    assert url is not None
    password = parse_url("source", url).password
    return password.get_secret_value() if password else None


@pytest.mark.parametrize(
    "option",
    [
        "postgresql://me:hunter2@db/shop",
        "postgresql://me@db/shop?password=hunter2",
        "postgresql://me@db/shop?sslmode=require&sslpassword=hunter2",
    ],
)
def test_a_url_with_a_password_is_refused_with_the_alternatives_and_not_repeated(option: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen_url("source", option, never)
    sentence = str(caught.value)
    assert sentence.startswith(
        "the source URL on the command line holds a password, which other users can read there; leave it out"
    )
    assert all(way in sentence for way in ("type it when asked", "STARLIFT_SOURCE_URL", "@FILE"))
    assert "hunter2" not in sentence


def test_a_url_that_can_t_be_read_is_not_repeated() -> None:
    with pytest.raises(UsageError, match=r"^the warehouse database's URL can't be read") as caught:
        chosen_url("warehouse", "postgresql://me:hun#ter2@db/star")
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("option", ["postgresql://me@db/shop", "postgresql://db/shop?user=me&sslmode=disable"])
def test_a_password_that_is_typed_reaches_the_database_whatever_its_characters(option: str) -> None:
    assert password_of(option, "a/b#c@d%e&f") == "a/b#c@d%e&f"
    assert password_of(option, "") is None


def test_a_url_that_says_that_there_is_no_password_asks_for_none() -> None:
    assert password_of("postgresql://me:@db/shop") is None


def test_without_a_terminal_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    url = chosen_url("source", "postgresql://me@db/shop")
    assert url is not None
    assert url.get_secret_value() == "postgresql://me@db/shop"


def test_the_end_of_the_input_at_the_prompt_is_an_interruption() -> None:
    def ended(_: str) -> str:
        raise EOFError

    with pytest.raises(KeyboardInterrupt):
        chosen_url("source", "postgresql://me@db/shop", ended)


def test_the_environment_and_a_file_may_hold_the_whole_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "source.url"
    file.write_text("postgresql://me:of+the+file@db/shop\n")
    monkeypatch.setenv("STARLIFT_SOURCE_URL", "postgresql://me:of+the+environment@db/shop")
    assert password_of(None) == "of+the+environment"
    monkeypatch.setenv("STARLIFT_UP_SOURCE_URL", "postgresql://me:of+up@db/shop")
    assert password_of(None) == "of+up", "as `starlift up` always read it"
    assert password_of(f"@{file}") == "of+the+file", "the command line counts first"


def test_a_file_that_is_not_there_is_reported_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere' can't be read \(No such file or directory\); correct the path"):
        chosen_url("source", f"@{tmp_path / 'nowhere'}")


def test_nothing_given_is_not_a_url() -> None:
    assert chosen_url("source", None, never) is None


async def test_the_urls_of_other_sources_are_in_variables_that_end_with_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARLIFT_SOURCE_NAME", raising=False)
    monkeypatch.setenv("STARLIFT_SOURCE_URL", "postgresql://me@main/db")
    monkeypatch.setenv("STARLIFT_SOURCE_URL_PLANS", "postgresql://me@plans/db")
    found = await urls_of_others(SEVERAL)
    assert found == {"plans": SecretStr("postgresql://me@plans/db"), "regions": None}
    assert chosen_url("source", None, source="plans") == SecretStr("postgresql://me@plans/db")
    assert chosen_url("source", None, source="regions") == SecretStr("postgresql://me@main/db")
    monkeypatch.setenv("STARLIFT_SOURCE_NAME", "regions")
    assert list(await urls_of_others(SEVERAL)) == ["shop", "plans"]
    assert await urls_of_others(SHOP) == {}
    monkeypatch.setenv("STARLIFT_SOURCE_NAME", "totesys")
    with pytest.raises(
        UsageError, match="STARLIFT_SOURCE_NAME=totesys is not one of the contract's sources shop, plans, regions"
    ):
        await urls_of_others(SEVERAL)
