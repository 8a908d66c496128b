from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from infra.local.bootstrap import Resources
from infra.local.processes import ProcessId, own_id
from infra.local.state import StackState
from infra.topology import read_topology
from services.operator.errors import UsageError
from services.operator.locate import chosen_settings, has_local_stack, operator_settings
from tests.fixtures.totesys import CONTRACT

QUEUES = ("ingestion", "remodelling", "loading")


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """An environment with nothing but the state directory, restored after the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STARLIFT_", "AWS_", "PG"))}
    with mock.patch.dict(os.environ, kept | {"STARLIFT_HOME": str(tmp_path / "home")}, clear=True):
        yield tmp_path / "home"


def settings_of(queue: str) -> dict[str, str]:
    return {
        f"STARLIFT_{queue}_QUEUE_URL".upper(): f"https://sqs/1/{queue}",
        f"STARLIFT_{queue}_DEAD_LETTER_URL".upper(): f"https://sqs/1/{queue}-dlq",
    }


def complete_environment() -> dict[str, str]:
    queues = {name: value for queue in QUEUES for name, value in settings_of(queue).items()}
    return queues | {
        "STARLIFT_REGION": "eu-west-2",
        "STARLIFT_LANDING_BUCKET": "their-landing",
        "STARLIFT_PROCESSED_BUCKET": "their-processed",
        "STARLIFT_SOURCE_SECRET": "their-source",
    }


def write_stack(home: Path, owner: ProcessId, **more: dict[str, str]) -> None:
    topology = read_topology()
    resources = Resources(
        stack="ours",
        region=topology.region,
        endpoint_url="http://127.0.0.1:4566",
        queue_urls={queue: f"http://127.0.0.1:4566/{queue}" for queue in topology.queues},
        dead_letter_urls={queue: f"http://127.0.0.1:4566/{queue}-dlq" for queue in topology.queues},
        buckets={bucket: f"our-{bucket}" for bucket in topology.buckets},
        secrets={secret: f"our-{secret}" for secret in topology.secrets},
    )
    home.mkdir()
    state = StackState.model_validate({"stack": "ours", "owner": owner, "resources": resources, **more})
    (home / "stack.json").write_text(state.model_dump_json())


def test_a_missing_starlift_is_reported() -> None:
    with pytest.raises(
        UsageError,
        match=r"no Starlift is running in \S+/home; (start one with `starlift up|one is running elsewhere: set STARLIFT_HOME=)",
    ):
        operator_settings()


def test_a_running_local_stack_is_found(home: Path) -> None:
    write_stack(home, own_id())
    settings = operator_settings()
    assert (settings.landing_bucket, settings.source_secret) == ("our-landing", "our-source")
    assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"


def test_a_stack_whose_owner_has_died_is_ignored(home: Path) -> None:
    write_stack(home, ProcessId(own_id().pid, 1.0))
    with pytest.raises(UsageError):
        operator_settings()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", json.dumps({"stack": "of another version"}).encode()])
def test_an_unreadable_state_file_is_ignored(content: bytes, home: Path) -> None:
    home.mkdir()
    (home / "stack.json").write_bytes(content)
    with pytest.raises(UsageError):
        operator_settings()


def test_the_environment_overrides_the_local_stack(home: Path) -> None:
    write_stack(home, own_id())
    os.environ.update(complete_environment())
    settings = operator_settings()
    assert (settings.landing_bucket, settings.source_secret) == ("their-landing", "their-source")


def test_an_incomplete_environment_names_what_is_missing() -> None:
    os.environ.update(settings_of("ingestion"))
    with pytest.raises(UsageError, match=r"invalid settings: STARLIFT_REGION is missing; set it; STARLIFT_LAND"):
        operator_settings()


def test_variables_of_other_systems_are_ignored_for_a_local_stack(home: Path) -> None:
    write_stack(home, own_id())
    elsewhere = {
        "AWS_PROFILE": "mine",
        "AWS_DEFAULT_PROFILE": "mine",
        "AWS_ENDPOINT_URL_S3": "http://other",
        "STARLIFT_SOURCE_URL": "postgresql://other/db",
        "STARLIFT_SOURCE_NAME": "other",
        "PGSSLMODE": "require",
    }
    os.environ.update(elsewhere | {"PGSSLROOTCERT": "/authorities.pem"})
    settings = operator_settings()
    assert not elsewhere.keys() & os.environ.keys()
    assert os.environ["PGSSLROOTCERT"] == "/authorities.pem"  # it says whom to trust, and leads nowhere
    assert (settings.source_url, settings.source_name) == (None, "totesys")
    assert os.environ["AWS_CONFIG_FILE"] == os.environ["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull


def test_the_chosen_contract_also_applies_to_a_local_stack(home: Path) -> None:
    write_stack(home, own_id())
    os.environ["STARLIFT_CONTRACT"] = "contracts.nothing"
    with pytest.raises(UsageError, match=r"STARLIFT_CONTRACT=contracts\.nothing is invalid"):
        operator_settings()


def test_the_stack_s_contract_and_source_name_apply_in_every_shell(home: Path) -> None:
    write_stack(home, own_id(), chosen={"STARLIFT_CONTRACT": "totesys", "STARLIFT_SOURCE_NAME": "shop"})
    os.environ["STARLIFT_CONTRACT"] = "contracts.nothing"
    settings = operator_settings()
    assert (settings.contract, settings.source_name) == (CONTRACT, "shop")


def test_the_urls_of_a_user_s_own_databases_come_from_the_stack(home: Path) -> None:
    write_stack(home, own_id(), database_urls={"warehouse": "postgresql://me:hunter2@dwh/star"})
    settings = operator_settings()
    assert settings.warehouse_url is not None
    assert settings.warehouse_url.get_secret_value() == "postgresql://me:hunter2@dwh/star"
    assert settings.source_url is None


def test_the_local_stack_is_installed_for_the_tests() -> None:
    assert has_local_stack()


def test_a_local_stack_takes_what_concerns_apis_from_the_environment_and_no_address_of_another_starlift() -> None:
    given = {"STARLIFT_API_ALLOW": "10.1.0.0/16", "STARLIFT_API_SECRET_RATES": "{}", "STARLIFT_LOG_LEVEL": "debug"}
    os.environ.update(given | {"STARLIFT_LANDING_BUCKET": "theirs", "STARLIFT_API_PROXY": ""})
    assert chosen_settings() == given
