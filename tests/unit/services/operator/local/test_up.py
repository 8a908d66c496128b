from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from botocore.exceptions import EndpointConnectionError
from pydantic import SecretStr

from infra.local import machine
from infra.local.machine import StackError
from infra.local.stack import Stack
from infra.local.ticker import Ticker
from services.operator.contract.plan import require_possible
from services.operator.errors import OperatorError, UsageError
from services.operator.local.events import LogTail
from services.operator.local.up import (
    UpOptions,
    _wait_until_up,
    last_words,
    load_contract_of_environment,
    new_sentences,
    report_until_stopped,
)
from services.operator.locate import chosen_settings
from tests.fixtures.plans import plan_for
from tests.fixtures.totesys import CONTRACT
from tests.unit.services.operator.local.test_events import line

EVERY = timedelta(seconds=2.5)
SOURCE, WAREHOUSE = SecretStr("postgresql://me:hunter2@db/shop"), SecretStr("postgresql://me:hunter2@dwh/star")


def test_urls_are_not_passed_on_the_command_line() -> None:
    options = UpOptions(SOURCE, WAREHOUSE, EVERY)
    assert options.arguments() == ["up", "--every", "2.5", "--prove-every", "60.0"]
    assert replace(options, localstack_port=4566).arguments() == [*options.arguments(), "--localstack-port", "4566"]
    assert options.environment() == {
        "STARLIFT_UP_SOURCE_URL": "postgresql://me:hunter2@db/shop",
        "STARLIFT_UP_WAREHOUSE_URL": "postgresql://me:hunter2@dwh/star",
    }


def test_urls_that_were_not_given_are_not_passed_on() -> None:
    assert UpOptions(None, None, EVERY).environment() == {}


def test_a_user_s_own_warehouse_is_not_filled_with_simulated_rows() -> None:
    with pytest.raises(UsageError, match="--warehouse-url without --source-url would fill your warehouse with simulated"):
        UpOptions(None, WAREHOUSE, EVERY).require_agreement(CONTRACT)
    UpOptions(SOURCE, None, EVERY).require_agreement(CONTRACT)
    UpOptions(None, None, EVERY).require_agreement(CONTRACT)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("starlift: the port is taken\n", "the port is taken"),
        ("source: 9 rows made\nstarlift: it ended; its log ends with:\na\nb\n", "it ended; its log ends with:\na\nb"),
        ("Traceback (most recent call last):\n  File\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("", "it ended without a message"),
    ],
)
def test_a_stack_that_did_not_start_is_reported_with_its_last_lines(log: str, words: str) -> None:
    assert last_words(log) == words


def test_a_detached_stack_that_ended_on_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "up.log"
    log.write_text("source: 9 rows made\n")
    monkeypatch.setattr(machine, "_WAL_SEGMENT_BYTES", 2**62)
    with subprocess.Popen(["/bin/true"]) as ended:
        ended.wait()
        with pytest.raises(StackError, match="no space left on the disk of"):
            _wait_until_up(ended, log)


def test_the_shipped_contract_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARLIFT_CONTRACT", raising=False)
    assert load_contract_of_environment() == CONTRACT


def test_an_invalid_contract_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARLIFT_CONTRACT", "nothing")
    with pytest.raises(UsageError, match=r"^STARLIFT_CONTRACT is wrong: Starlift ships no contract 'nothing', only "):
        load_contract_of_environment()


def test_a_local_stack_refuses_a_contract_in_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARLIFT_CONTRACT", "s3://bucket/shop.yaml")
    with pytest.raises(UsageError, match=r"^a local stack has no AWS credentials to read 's3://bucket/shop\.yaml'; download"):
        load_contract_of_environment()


def test_services_get_contract_and_source_name_but_no_foreign_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("STARLIFT_")]:
        monkeypatch.delenv(name)
    for name in ("CONTRACT", "LOG_LEVEL", "SOURCE_NAME", "SOURCE_URL", "QUEUE_URL"):
        monkeypatch.setenv(f"STARLIFT_{name}", name)
    assert chosen_settings() == {f"STARLIFT_{name}": name for name in ("CONTRACT", "LOG_LEVEL", "SOURCE_NAME")}


def test_only_log_events_of_interest_are_printed(tmp_path: Path) -> None:
    log = tmp_path / "ingestion.log"
    tails = [LogTail(log), LogTail(tmp_path / "loading.log")]
    log.write_text(f"{line('message_received')}\n{line('dependency_up', dependency='source')}\nnot JSON\n")
    assert list(new_sentences(tails)) == ["09:30:15  ingestion    source answers again"]


@dataclass
class RestlessStack:
    """A stack whose LocalStack dies just before the first request; after the second, the user presses Ctrl-C."""

    asked: int = 0

    def tend(self) -> list[str]:
        return [] if self.asked != 1 else ["LocalStack had ended and was started again"]

    def tickers(self, interval: timedelta) -> list[Ticker]:
        return [Ticker(self.ask, interval, iter(range(100)).__next__)]

    def ask(self) -> None:
        self.asked += 1
        raise KeyboardInterrupt if self.asked > 1 else EndpointConnectionError(endpoint_url="http://127.0.0.1:4566")


def test_a_request_that_localstack_does_not_answer_ends_nothing() -> None:
    said: list[str] = []
    stack = RestlessStack()
    report_until_stopped(cast("Stack", stack), [], timedelta(seconds=1), said.append, lambda: None)
    assert stack.asked == 2
    assert said == [
        'could not ask for a run: Could not connect to the endpoint URL: "http://127.0.0.1:4566"',
        "LocalStack had ended and was started again",
        "stopping",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop",
        "mysql://me:hunter2@db/shop",
        "postgresql://me:hun#ter2@db/shop",
        "postgresql://me:hun/ter2@db/shop",
        "postgresql://me:hunter2@db:port/shop",
        "postgresql://me:hunter2@db:99999/shop",
        "postgresql://me:hunter2@[::1/shop",
        "postgresql://me:hun?ter2@db/shop",
        "postgresql://me:hun?x=ter2@db/shop",
        "postgresql://me:hun%%41ter2@db/shop",
        "postgresql://me:123/ter2@db/shop",
    ],
)
async def test_an_invalid_url_is_reported_without_its_password(url: str) -> None:
    plan = await plan_for(CONTRACT, source=url, warehouse=url)
    assert [problem.part for problem in plan.problems] == ["source", "warehouse"]
    for problem in plan.problems:
        assert problem.text.startswith(
            f"the {problem.part} database's URL can't be read; it should look like postgresql://user:"
        )
        assert "ter2" not in problem.text
    with pytest.raises(UsageError, match=r"^2 problems:\n  source: the source database's URL can't be read"):
        require_possible(plan)


async def test_a_port_without_a_server_is_reported(unused_tcp_port: int) -> None:
    for hosts in (f"127.0.0.1:{unused_tcp_port}", f"127.0.0.1:{unused_tcp_port},127.0.0.1:{unused_tcp_port}"):
        plan = await plan_for(CONTRACT, source=f"postgresql://me:hunter2@{hosts}/shop")
        with pytest.raises(OperatorError, match="nothing listens at the source database's host and port") as caught:
            require_possible(plan)
        assert not isinstance(caught.value, UsageError)
