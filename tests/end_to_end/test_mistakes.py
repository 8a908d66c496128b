"""A user's mistake results in one clear sentence on stderr, the right exit code and no traceback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.machine import LOOPBACK, free_port
from infra.local.state import Home
from tests.end_to_end.conftest import Databases, Starlift, databases_of
from tests.fixtures.postgres_cluster import TestCluster


@pytest.fixture(scope="module")
def own(postgres_cluster: TestCluster) -> Iterator[Databases]:
    """A source with tables but no rows."""
    with databases_of(postgres_cluster, orders=1) as both:
        yield both


def with_password(url: str, password: str) -> str:
    user, _, rest = url.rpartition(":")[0].partition("//")[2].partition(":")
    assert rest
    return f"postgresql://{user}:{password}@{url.rpartition('@')[2]}"


def test_a_wrong_password_is_reported(starlift: Starlift, own: Databases) -> None:
    url = with_password(own.warehouse, "guess")
    sentence = starlift("up", expected=1, **own.urls | {"STARLIFT_WAREHOUSE_URL": url}).complains(1)
    assert sentence.startswith("the warehouse database refuses the user or the password; correct its URL or secret (PGPASSWORD")


def test_a_port_without_a_server_is_reported_by_a_detached_stack(starlift: Starlift) -> None:
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/shop"
    sentence = starlift("up", "--detach", expected=1, STARLIFT_SOURCE_URL=url).complains(1)
    assert sentence == "nothing listens at the source database's host and port; start it or correct the URL"
    assert starlift.alive == set()


def test_an_unknown_host_is_reported(starlift: Starlift) -> None:
    sentence = starlift("up", "--source-url", "postgresql://me:@db.invalid/shop", expected=1).complains(1)
    assert sentence.startswith("the source database's host can't be reached (")
    assert sentence.endswith("; check the URL and the network")


@pytest.mark.parametrize(
    ("mistake", "repair", "expected"),
    [
        (
            "ALTER TABLE payment RENAME TO payments",
            "ALTER TABLE payments RENAME TO payment",
            "schema 'public' lacks table 'payment' required by contract 'totesys'; restore it or change the contract",
        ),
        (
            "ALTER TABLE sales_order RENAME unit_price TO price",
            "ALTER TABLE sales_order RENAME price TO unit_price",
            "table 'sales_order' lacks column 'unit_price' required by contract 'totesys'; restore it or change the contract",
        ),
    ],
    ids=["no table", "no column"],
)
def test_a_source_that_does_not_match_the_contract_is_reported(
    mistake: str, repair: str, expected: str, starlift: Starlift, own: Databases
) -> None:
    own.write(mistake)
    try:
        sentence = starlift("up", expected=2, **own.urls).complains(2)
        assert sentence.startswith(expected)
        assert "dead letters" not in sentence, "nothing runs yet"
    finally:
        own.write(repair)


def test_an_invalid_url_is_not_printed(starlift: Starlift) -> None:
    sentence = starlift("up", "--source-url", "postgresql://me:hun#ter2@db/shop", expected=2).complains(2)
    assert sentence.startswith("the source database's URL can't be read; it should look like postgresql://user:password@host")
    assert "ter2" not in sentence


@pytest.mark.parametrize("command", ["up", "plan"])
def test_a_password_on_the_command_line_is_refused(command: str, starlift: Starlift) -> None:
    sentence = starlift(command, "--source-url", "postgresql://me:hunter2@db/shop", expected=2).complains(2)
    assert sentence.startswith("the source URL on the command line holds a password, which other users can read there; ")
    assert "hunter2" not in sentence


def test_the_databases_of_a_deployed_starlift_are_not_used_by_mistake(starlift: Starlift) -> None:
    deployed = {"STARLIFT_INGESTION_QUEUE_URL": "https://sqs/1/q", "STARLIFT_SOURCE_URL": "postgresql://me:hunter2@db/shop"}
    sentence = starlift("up", expected=2, **deployed).complains(2)
    assert sentence == (
        "the environment describes another Starlift (STARLIFT_INGESTION_QUEUE_URL), to which STARLIFT_SOURCE_URL belongs; "
        "unset both, or pass --source-url"
    )


@pytest.mark.parametrize("arguments", [("up",), ("up", "--detach")])
def test_a_taken_port_is_reported(arguments: tuple[str, ...], starlift: Starlift) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence = starlift(*arguments, "--localstack-port", str(port), expected=1).complains(1)
    assert sentence == f"LocalStack needs port {port} of 127.0.0.1, which is in use; stop its owner or choose another"
    assert starlift.alive == set()


@pytest.mark.parametrize("arguments", [("up",), ("up", "--detach")])
def test_a_warehouse_without_a_source_is_refused(arguments: tuple[str, ...], starlift: Starlift) -> None:
    url = "postgresql://me:hunter2@dwh/star"
    sentence = starlift(*arguments, expected=2, STARLIFT_UP_WAREHOUSE_URL=url).complains(2)
    assert sentence.startswith("--warehouse-url without --source-url would fill your warehouse with simulated rows; pass both")


def test_a_command_without_a_running_starlift_says_how_to_start_one(starlift: Starlift) -> None:
    sentence = starlift("verify", expected=2).complains(2)
    assert sentence.startswith(f"no Starlift is running in {starlift.home}; ")
    assert sentence.endswith(", or set STARLIFT_INGESTION_QUEUE_URL and the other settings of the operator")


def test_an_incomplete_environment_is_reported(starlift: Starlift) -> None:
    sentence = starlift("status", expected=2, STARLIFT_INGESTION_QUEUE_URL="https://sqs/1/q").complains(2)
    assert sentence.startswith("invalid settings: STARLIFT_REGION is missing; set it; ")


def test_a_contract_that_does_not_exist_is_reported(starlift: Starlift) -> None:
    sentence = starlift("up", "--detach", expected=2, STARLIFT_CONTRACT="nothing").complains(2)
    assert sentence.startswith("STARLIFT_CONTRACT is wrong: Starlift ships no contract 'nothing', only ")


@pytest.mark.parametrize("arguments", [("verify", "--jason"), ("up", "--every", "0")])
def test_a_wrong_option_is_reported(arguments: tuple[str, ...], starlift: Starlift) -> None:
    answer = starlift(*arguments, expected=2)
    assert "Usage:" in answer.err
    assert arguments[-1] in answer.err or "--every" in answer.err


@pytest.mark.parametrize("arguments", [("up", "--detach"), ("demo",)])
def test_an_unwritable_home_is_reported(arguments: tuple[str, ...], tmp_path: Path, starlift: Starlift) -> None:
    occupied = tmp_path / "a file"
    occupied.touch()
    starlift.home = occupied / "home"
    sentence = starlift(*arguments, expected=1).complains(1)
    assert sentence.startswith(f"the state directory {occupied / 'home'}")
    assert sentence.endswith("can't be written (Not a directory); set STARLIFT_HOME to another")
    assert list(tmp_path.iterdir()) == [occupied]


@pytest.mark.parametrize("play", [("demo",), ("demo", "--late-commit")])
def test_a_second_demo_does_not_end_the_first(starlift: Starlift, play: tuple[str, ...]) -> None:
    first = Home(starlift.home / "demo")
    first.take()
    try:
        sentence = starlift(*play, expected=1).complains(1)
    finally:
        first.release()
    assert sentence == "another demo is running here; wait until it has ended, or set STARLIFT_HOME to another place"
