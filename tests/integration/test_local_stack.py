from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from contracts.messages import IngestSource, Trigger, decode
from infra.local import localstack as localstack_module
from infra.local import machine
from infra.local import state as state_module
from infra.local.bootstrap import client
from infra.local.databases import execute, fetch_value
from infra.local.machine import LOOPBACK, StackError, free_port
from infra.local.processes import ProcessId, find, start, stop, tail, wait_until
from infra.local.stack import Stack
from infra.local.state import Home
from tests.fixtures.limits import HANG

OWNER = """
import sys, time
from pathlib import Path
from infra.local.stack import Stack

with Stack(Path(sys.argv[1])) as stack:
    stack.start()
    print("up", flush=True)
    time.sleep(600)
"""

# A process that was started with SIGINT ignored, as a shell starts what runs in the background, would pass that on.
INTERRUPTIBLE = """
import signal, time

signal.signal(signal.SIGINT, signal.SIG_DFL)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("stack")
    yield directory
    Stack.remove(directory)


@pytest.fixture(scope="module")
def later_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of stacks that run one after another. Each test works with or without the databases of the one before."""
    directory = tmp_path_factory.mktemp("later")
    yield directory
    Stack.remove(directory)


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[Stack]:
    with Stack(home) as running:
        running.start()
        yield running


def processes_of(home: Path) -> dict[str, ProcessId]:
    state = Home(home).read()
    assert state is not None
    return state.processes


def sent_to(stack: Stack, queue: str) -> list[str]:
    with closing(client("sqs", stack.resources.endpoint_url, stack.resources.region)) as sqs:
        answer = sqs.receive_message(QueueUrl=stack.resources.queue_urls[queue], WaitTimeSeconds=5)
    return [message["Body"] for message in answer.get("Messages", ())]


def test_a_tick_requests_a_run(stack: Stack) -> None:
    (ticker,) = stack.tickers(timedelta(hours=1))
    assert ticker.tick()
    assert not ticker.tick()
    (body,) = sent_to(stack, "ingestion")
    message = decode(body)
    assert isinstance(message, IngestSource)
    assert message.data.trigger is Trigger.SCHEDULE


def test_a_message_received_ten_times_moves_to_its_dead_letter_queue(stack: Stack) -> None:
    with closing(client("sqs", stack.resources.endpoint_url, stack.resources.region)) as sqs:
        url = stack.resources.queue_urls["loading"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert '"maxReceiveCount": 10' in attributes["RedrivePolicy"]
    assert "starlift-loading-dlq" in attributes["RedrivePolicy"]
    assert attributes["VisibilityTimeout"] == "60"


def test_the_secrets_contain_the_urls_of_the_databases(stack: Stack) -> None:
    with closing(client("secretsmanager", stack.resources.endpoint_url, stack.resources.region)) as secrets:
        urls = {
            name: secrets.get_secret_value(SecretId=secret)["SecretString"] for name, secret in stack.resources.secrets.items()
        }
    assert fetch_value(urls["source"], "SELECT current_user::text") == "starlift_reader"
    assert fetch_value(urls["warehouse"], "SELECT current_user::text") == "starlift_loader"


def test_no_file_with_a_password_is_readable_by_others(stack: Stack, home: Path) -> None:
    password = stack.clusters["source"].password("starlift_reader")
    for file in (path for path in home.iterdir() if path.is_file() and password in path.read_text(errors="replace")):
        assert file.stat().st_mode & 0o077 == 0
        assert file.name.endswith(".passwords.json")


def test_a_second_stack_in_the_same_directory_is_refused(stack: Stack, home: Path) -> None:
    with pytest.raises(StackError, match=r"a stack is already running in .*; stop it"):
        Stack(home).start()
    assert Stack.found(home) is not None


def test_servers_that_died_are_restarted_and_set_up_again(stack: Stack) -> None:
    before = stack.resources
    assert stack.localstack is not None
    stack.clusters["warehouse"].kill()
    stack.localstack.child.stop(within=HANG, first=signal.SIGKILL)
    assert stack.tend() == [
        "PostgreSQL 'warehouse' had ended and was started again",
        "LocalStack had ended and was started again",
    ]
    assert stack.resources == before
    assert stack.tend() == []
    assert fetch_value(stack.database_url("warehouse"), "SELECT 1") == 1
    assert sent_to(stack, "ingestion") == []


def test_processes_of_the_stack_stop_with_it_and_its_data_survives(later_home: Path) -> None:
    with Stack(later_home) as first:
        names = first.start().buckets
        owner_url = first.source_owner_url
        assert owner_url is not None
        execute(owner_url, "CREATE TABLE kept AS SELECT 1 AS one")
        sleeper = start(["/bin/sleep", "600"], log=later_home / "sleeper.log", environment={})
        first.adopt("sleeper", sleeper)
        running = processes_of(later_home)
        assert set(running) == {"localstack", "postgres-source", "postgres-warehouse", "sleeper"}
    assert [name for name, process_id in running.items() if find(process_id)] == []
    assert Stack.found(later_home) is None
    with Stack(later_home) as second:
        assert second.start().buckets == names
        assert fetch_value(second.database_url("source"), "SELECT one FROM kept") == 1


def test_a_user_s_own_urls_are_kept_in_a_private_file_and_in_no_secret(tmp_path: Path, stack: Stack) -> None:
    own = {name: stack.database_url(name) for name in ("source", "warehouse")}
    chosen = {"STARLIFT_CONTRACT": "totesys", "STARLIFT_SOURCE_NAME": "shop"}
    state_file = tmp_path / "stack.json"
    try:
        with Stack(tmp_path, settings={**chosen, "STARLIFT_LOG_LEVEL": "debug"}) as running:
            resources = running.start(source_url=own["source"], warehouse_url=own["warehouse"])
            with closing(client("secretsmanager", resources.endpoint_url, resources.region)) as secrets:
                assert secrets.list_secrets()["SecretList"] == []
            found = Stack.found(tmp_path)
            assert found is not None
            assert found.database_urls == own
            assert state_file.stat().st_mode & 0o777 == 0o600
            assert (tmp_path / "localstack").stat().st_mode & 0o777 == 0o700
            operator, ingestion = running.state.environment_for("operator"), running.state.environment_for("ingestion")
            assert (operator["STARLIFT_SOURCE_URL"], operator["STARLIFT_WAREHOUSE_URL"]) == (own["source"], own["warehouse"])
            assert ingestion["STARLIFT_SOURCE_URL"] == own["source"]
            assert not {"STARLIFT_WAREHOUSE_URL", "STARLIFT_SOURCE_SECRET", "STARLIFT_LOG_LEVEL"} & ingestion.keys()
            assert chosen.items() <= ingestion.items() & operator.items()
            assert not any("_SECRET" in name for name in operator if name.startswith("STARLIFT_"))
            running.tickers()[0].tick()
            message = decode(sent_to(running, "ingestion")[0])
            assert isinstance(message, IngestSource)
            assert message.data.source_name == "shop"
        assert "postgresql://" not in state_file.read_text()
    finally:
        Stack.remove(tmp_path)


def owner_of(home: Path) -> subprocess.Popen[str]:
    """Another process that runs a stack in `home`, once it is up."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(home)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    return owner


def test_the_stack_ends_with_a_killed_owner_and_when_another_process_stops_it(later_home: Path) -> None:
    if sys.platform == "linux":  # only Linux signals a parent's death
        with owner_of(later_home) as owner:
            running = processes_of(later_home)
            owner.kill()
        assert wait_until(lambda: not any(find(process_id) for process_id in running.values()), within=HANG)
        assert Stack.found(later_home) is None
    with owner_of(later_home) as owner:
        running = processes_of(later_home)
        assert Stack.stop_found(later_home)
        assert owner.wait() != 0
    assert [name for name, process_id in running.items() if find(process_id)] == []
    Stack.remove(later_home)
    assert not later_home.exists()


def test_the_next_start_stops_processes_left_by_a_killed_owner(tmp_path: Path) -> None:
    orphan = start([sys.executable, "-c", INTERRUPTIBLE], log=tmp_path / "log", environment={})
    orphan.await_ready("the orphan", lambda: tail(orphan.log, 1) == "ready", within=HANG)
    gone = ProcessId(psutil.Process().pid, created=0.0)
    Home(tmp_path).write(state_module.StackState(stack="left", owner=gone, processes={"orphan": orphan.id}))
    assert Stack.found(tmp_path) is None
    assert Stack.stop_found(tmp_path)
    assert orphan.popen.wait() == -signal.SIGINT
    assert not Stack.stop_found(tmp_path / "nothing")


def test_a_recycled_pid_is_left_alone() -> None:
    ours = psutil.Process()
    stop([ProcessId(ours.pid, ours.create_time() - 3600)], within=timedelta(0), first=signal.SIGKILL)


def test_a_process_that_ignores_the_stop_request_is_killed(tmp_path: Path) -> None:
    deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done"
    child = start(["/bin/sh", "-c", deaf], log=tmp_path / "log", environment=dict(os.environ))
    child.await_ready("the deaf one", lambda: tail(child.log, 1) == "deaf", within=HANG)
    child.stop(within=timedelta(milliseconds=200))
    assert child.exit_code() == -signal.SIGKILL


def test_a_taken_port_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"LocalStack needs port {port} of 127.0.0.1, which is in use"):
            Stack(tmp_path).start(localstack_port=port)
        assert free_port(port) != port


def test_a_failed_download_of_localstack_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_NO_CACHE": "1", "STARLIFT_LOCALSTACK": "ls"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        StackError, match=r"LocalStack cannot be installed in .*: check the network, or set STARLIFT_LOCALSTACK"
    ):
        localstack_module.start_localstack(tmp_path / "stack", port=free_port(), region="eu-west-2")
    assert [path.name for path in tmp_path.iterdir()] == ["ls.lock"]


def test_a_program_that_dies_at_once_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    child = start(["/bin/sh", "-c", "echo no such luck; exit 3"], log=tmp_path / "log", environment={})
    with pytest.raises(StackError, match=r"it ended with 3; its log .* ends with:\nno such luck"):
        child.await_ready("it", lambda: False, within=HANG)


def test_a_full_disk_is_reported_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FREE_BYTES_MINIMUM", 2**62)
    with pytest.raises(StackError, match="MiB of free space and the local stack needs"):
        Stack(tmp_path).start()
    monkeypatch.undo()
    home = Home(tmp_path)
    home.take()  # a refusal leaves no lock behind
    home.release()


def test_an_unwritable_directory_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"can't be written .* set STARLIFT_HOME"):
        Stack(tmp_path / "file" / "stack").start()
