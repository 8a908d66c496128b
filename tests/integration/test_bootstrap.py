"""The programs that `docker compose` runs: the set-up and the schedule."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contracts.messages import IngestSource, decode
from infra.local import bootstrap, ticker
from infra.local.bootstrap import client
from infra.local.localstack import LocalStack
from infra.topology import Kind, Source, read_topology
from tests.fixtures.limits import HANG

SOURCE = "postgresql://starlift_reader@127.0.0.1/totesys"
WAREHOUSE = "postgresql://starlift_loader@127.0.0.1/warehouse"


class StoppedError(Exception):
    pass


@pytest.fixture
def environment(localstack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", localstack.endpoint_url)
    monkeypatch.setenv("STARLIFT_STACK", "bootstrap-test")
    monkeypatch.setenv("STARLIFT_SOURCE_URL", SOURCE)
    monkeypatch.setenv("STARLIFT_WAREHOUSE_URL", WAREHOUSE)


def test_the_set_up_may_be_repeated_and_keeps_existing_resources(
    environment: None, localstack: LocalStack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bootstrap.main() == 0
    first = json.loads(capsys.readouterr().out)
    with closing(client("sqs", localstack.endpoint_url, localstack.region)) as sqs:
        url = first["queue_urls"]["loading"]
        sqs.send_message(QueueUrl=url, MessageBody="kept")
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
        monkeypatch.setenv("STARLIFT_SOURCE_URL", f"{SOURCE}_moved")
        assert bootstrap.main() == 0
        assert json.loads(capsys.readouterr().out) == first
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert attributes["VisibilityTimeout"] == "60"
        assert sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"][0]["Body"] == "kept"
    with closing(client("secretsmanager", localstack.endpoint_url, localstack.region)) as secrets:
        assert secrets.get_secret_value(SecretId=first["secrets"]["source"])["SecretString"] == f"{SOURCE}_moved"


def test_a_file_is_announced_to_the_source_that_has_its_data_set_and_to_no_other(localstack: LocalStack) -> None:
    sources = {"totesys": Source(), "budgets": Source(Kind.FILES, ("budget",)), "goals": Source(Kind.FILES, ("goal",))}
    made = bootstrap.bootstrap(read_topology().with_sources(sources), localstack.endpoint_url, "drop-zone-test", {})
    queues = {name: made.queue_urls[f"ingestion-{name}"] for name in ("budgets", "goals")} | {
        "totesys": made.queue_urls["ingestion"]
    }
    with (
        closing(client("s3", localstack.endpoint_url, localstack.region)) as s3,
        closing(client("sqs", localstack.endpoint_url, localstack.region)) as sqs,
    ):
        for dataset in ("unknown", "budgets", "budget", "goal"):  # a file of an unknown data set is put before the others
            s3.put_object(Bucket=made.buckets["landing"], Key=f"dropzone/{dataset}/2026.csv", Body=b"id\n1\n")
        assert announced(sqs, queues["budgets"]) == ["dropzone/budget/2026.csv"]
        assert announced(sqs, queues["goals"]) == ["dropzone/goal/2026.csv"]
        assert "Messages" not in sqs.receive_message(QueueUrl=queues["totesys"], WaitTimeSeconds=0)
        assert s3.get_bucket_versioning(Bucket=made.buckets["landing"])["Status"] == "Enabled"
        for key in ("budgets/state.json", "dropzone/goal/2026.csv"):
            for body in (b"1", b"2", b"3"):
                s3.put_object(Bucket=made.buckets["landing"], Key=key, Body=body)
        bootstrap.forget_old_states(made, sources)
        kept = [one["Key"] for one in s3.list_object_versions(Bucket=made.buckets["landing"])["Versions"]]
        assert kept.count("budgets/state.json") == 1
        assert kept.count("dropzone/goal/2026.csv") == 4
        assert s3.get_object(Bucket=made.buckets["landing"], Key="budgets/state.json")["Body"].read() == b"3"


def announced(sqs: Any, queue_url: str) -> list[str]:
    """The keys of the objects that S3 announces, from the first that comes until there is no other."""
    found: list[str] = []
    deadline = time.monotonic() + HANG.total_seconds()
    while True:
        answer = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=0 if found else 5)
        events = [json.loads(message["Body"]) for message in answer.get("Messages", ())]
        assert all("Records" in event or event["Event"] == "s3:TestEvent" for event in events)
        keys = [record["s3"]["object"]["key"] for event in events for record in event.get("Records", ())]
        if found and not events:
            return found
        found += keys
        assert time.monotonic() < deadline


def test_the_set_up_names_missing_settings(
    environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STARLIFT_STACK")
    monkeypatch.delenv("STARLIFT_WAREHOUSE_URL")
    assert bootstrap.main() == 2
    assert "set STARLIFT_STACK, STARLIFT_WAREHOUSE_URL" in capsys.readouterr().err


def test_a_missing_localstack_is_reported_in_one_sentence(
    environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert bootstrap.main() == 1
    assert "LocalStack at http://127.0.0.1:9 rejected the set-up" in capsys.readouterr().err


def test_the_schedule_requests_a_run_and_updates_its_health_file(
    localstack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_the_loop(_seconds: float) -> None:
        raise StoppedError

    with closing(client("sqs", localstack.endpoint_url, localstack.region)) as sqs:
        url = sqs.create_queue(QueueName="schedule-test")["QueueUrl"]
        monkeypatch.setenv("AWS_ENDPOINT_URL", localstack.endpoint_url)
        monkeypatch.setenv("STARLIFT_INGESTION_QUEUE_URL", url)
        monkeypatch.setenv("STARLIFT_HEALTH_FILE", str(tmp_path / "alive"))
        monkeypatch.setattr("infra.local.ticker.time.sleep", stop_the_loop)
        with pytest.raises(StoppedError):
            ticker.main()
        monkeypatch.undo()
        body = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"][0]["Body"]
    assert isinstance(decode(body), IngestSource)
    assert (tmp_path / "alive").read_text() == "ready\n"
