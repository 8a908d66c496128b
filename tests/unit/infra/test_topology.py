from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from contracts.datasets import Api, Dataset, Format, RecordForm, Request
from contracts.dead_letters import archive_key, begun_key, ended_key
from contracts.messages import MESSAGE_BYTES_MAXIMUM
from contracts.objects import SourceKeys
from infra.local.bootstrap import Resources
from infra.local.state import environment_for
from infra.topology import FILE, Bucket, Kind, Schedule, Source, Topology, read_topology, sources_of
from services.ingestion.settings import IngestionSettings
from services.loading.settings import LoadingSettings
from services.operator.system import OperatorSettings
from services.remodelling.settings import RemodellingSettings
from shared.service import World
from shared.settings import ServiceSettings
from shared.testing import FakeObjectStore, FakeQueue
from tests.fixtures.several_sources import BUDGET, SEVERAL


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FILE.read_text())
    change(document)
    return document


def test_the_topology_is_consistent() -> None:
    assert read_topology().name == "starlift"


def test_every_queue_is_consumed_by_exactly_one_service() -> None:
    topology = read_topology()
    assert sorted(queue for service in topology.services.values() for queue in service.queues) == sorted(topology.queues)


def test_resource_names_are_those_used_on_aws() -> None:
    topology = read_topology()
    assert topology.queue_name("loading") == "starlift-loading"
    assert topology.dead_letter_name("loading") == "starlift-loading-dlq"
    assert topology.bucket_name("landing", "ab12") == "starlift-landing-ab12"
    assert topology.secret_name("source", "ab12") == "starlift/ab12/source"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda it: it["services"]["loading"].update(consumes="nowhere"), "service 'loading' names the queue 'nowhere'"),
        (lambda it: it["services"]["loading"].update(reads=["nowhere"]), "service 'loading' names the bucket 'nowhere'"),
        (lambda it: it["services"]["loading"].update(secrets=["nothing"]), "service 'loading' names the secret 'nothing'"),
        (lambda it: it["services"]["loading"].update(sends=["ingestion", "loading"]), "a service sends to one queue at most"),
        (lambda it: it["services"]["loading"].update(min=9), "min 9 above max 4"),
        (lambda it: it["schedules"]["ingest-totesys"].update(queue="nowhere"), "names the queue 'nowhere'"),
        (lambda it: it.update(attempts=10), "SQS would move a message away before its failure is recorded"),
        (lambda it: it.update(dead_letter_retention_s=60), "keeps messages longer than its dead-letter queue"),
        (lambda it: it.update(drain_budget_s=120), "drain_budget_s 120 must be below stop_timeout_s 120"),
        (lambda it: it.update(stop_timeout_s=121), "less than or equal to 120"),
        (lambda it: it["queues"]["loading"].update(visibility_timeout_s=901), "less than or equal to 900"),
        (lambda it: it["operator"].update(reads=["nowhere"]), "the operator names the bucket 'nowhere'"),
        (lambda it: it["operator"].update(secrets=["nothing"]), "the operator names the secret 'nothing'"),
        (lambda it: it["proof"].update(writes={"nowhere": ["*"]}), "the proof names the bucket 'nowhere'"),
        (lambda it: it["buckets"]["landing"]["expire_days"].update(totesys=30), "another prefix below 'totesys'"),
        (lambda it: it["alarms"].update(silent_minutes=7), "multiple of 5"),
        (lambda it: it.update(colour="blue"), "Extra inputs are not permitted"),
    ],
)
def test_a_topology_that_contradicts_itself_is_refused(change: Callable[[dict[str, Any]], None], complaint: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Topology.model_validate(changed(change))
    assert complaint in str(refusal.value)


@pytest.mark.parametrize("queue", {schedule.queue for schedule in read_topology().schedules.values()})
def test_a_service_that_reads_sources_has_no_more_tasks_than_there_are_sources_unless_they_share_a_load(queue: str) -> None:
    topology = read_topology()
    sources = {schedule.source for schedule in topology.schedules.values() if schedule.queue == queue}
    assert all(
        service.shares is not None or service.max == len(sources)
        for service in topology.services.values()
        if service.consumes == queue
    )


def test_the_message_limit_equals_that_of_the_queues() -> None:
    assert read_topology().message_bytes == MESSAGE_BYTES_MAXIMUM


@pytest.mark.parametrize("schedule", read_topology().schedules.values(), ids=lambda schedule: schedule.source)
def test_every_object_expires_and_those_that_people_read_expire_last(schedule: Schedule) -> None:
    buckets = read_topology().buckets
    sha256 = "0" * 64
    keys = SourceKeys(schedule.source)
    batch = keys.batch(1, 0)
    landing = [batch.extract("staff", "base", sha256), keys.manifest(1), begun_key("x")]
    processed = [batch.star_rows("dim_staff", sha256), batch.quarantine(sha256)]
    found = [kept(buckets[bucket], key) for bucket, held in (("landing", landing), ("processed", processed)) for key in held]
    assert found == [90, 90, 365, 90, 365]


KEYS, SHA256 = SourceKeys("totesys"), "0" * 64
BATCH = KEYS.batch(1, 0)


@pytest.mark.parametrize(
    ("bucket", "keys", "writers"),
    [
        (
            "landing",
            [KEYS.state, KEYS.manifest(1), BATCH.extract("staff", "base", SHA256), BATCH.key_hashes(SHA256)],
            {"ingestion"},
        ),
        (
            "processed",
            [
                BATCH.star_rows("dim_staff", SHA256),
                BATCH.key_hashes(SHA256),
                BATCH.rejected_keys(SHA256),
                BATCH.quarantine(SHA256),
            ],
            {"remodelling"},
        ),
        ("landing", [begun_key("1"), ended_key("1"), archive_key("1", 0)], {"operator"}),
        (
            "landing",
            [KEYS.proof(datetime(2026, 1, 1, tzinfo=UTC)), KEYS.last_proof, KEYS.proof_failure, KEYS.history],
            {"operator", "proof"},
        ),
    ],
)
def test_an_object_is_written_only_by_those_who_make_it(bucket: str, keys: list[str], writers: set[str]) -> None:
    topology = read_topology()
    writes = {name: service.writes for name, service in topology.services.items()}
    writes |= {"operator": topology.operator.writes, "proof": topology.proof.writes}
    for key in keys:
        may = {name for name, patterns in writes.items() if any(fnmatchcase(key, one) for one in patterns.get(bucket, ()))}
        assert may == writers, key


def kept(bucket: Bucket, key: str) -> int:
    (days,) = [days for prefix, days in bucket.expire_days.items() if key.startswith(prefix)]
    return days


@pytest.mark.parametrize(
    ("expression", "interval"),
    [("rate(1 minute)", timedelta(minutes=1)), ("rate(5 minutes)", timedelta(minutes=5)), ("rate(1 day)", timedelta(days=1))],
)
def test_a_rate_expression_has_an_interval(expression: str, interval: timedelta) -> None:
    assert Schedule(expression=expression, queue="ingestion", source="totesys").interval == interval


def test_a_cron_expression_has_no_interval() -> None:
    with pytest.raises(ValueError, match="has no interval"):
        _ = Schedule(expression="cron(0 6 * * ? *)", queue="ingestion", source="totesys").interval


SETTINGS: dict[str, type[ServiceSettings]] = {
    "ingestion": IngestionSettings,
    "remodelling": RemodellingSettings,
    "loading": LoadingSettings,
}


def resources(*sources: str) -> Resources:
    return resources_of(read_topology().with_sources({"totesys": Source()} | dict.fromkeys(sources, Source())))


def resources_of(topology: Topology) -> Resources:
    return Resources(
        stack="test",
        region="eu-west-2",
        endpoint_url="http://127.0.0.1:1",
        queue_urls={queue: f"http://127.0.0.1:1/{queue}" for queue in topology.queues},
        dead_letter_urls={queue: f"http://127.0.0.1:1/{queue}-dlq" for queue in topology.queues},
        buckets={bucket: topology.bucket_name(bucket, "test") for bucket in topology.buckets},
        secrets={secret: topology.secret_name(secret, "test") for secret in topology.secrets},
    )


def set_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("service", read_topology().services)
def test_a_service_understands_the_environment_that_the_local_stack_gives_it(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = read_topology()
    set_environment(monkeypatch, environment_for(service, resources(), topology))
    settings = SETTINGS[service]()
    wanted = topology.services[service]
    assert settings.queue_url == f"http://127.0.0.1:1/{wanted.consumes}"
    assert settings.dead_letter_url == f"http://127.0.0.1:1/{wanted.consumes}-dlq"
    assert settings.next_queue_url == (f"http://127.0.0.1:1/{wanted.sends[0]}" if wanted.sends else None)
    shared = [f"http://127.0.0.1:1/{wanted.shares}{suffix}" if wanted.shares else None for suffix in ("", "-dlq")]
    assert [settings.shared_queue_url, settings.shared_dead_letter_url] == shared
    assert settings.slots == wanted.slots
    assert settings.handler_limit == timedelta(seconds=wanted.handler_limit_s)
    for secret in wanted.secrets:
        assert getattr(settings, f"{secret}_secret") == f"starlift/test/{secret}"


@pytest.mark.parametrize("service", read_topology().services)
async def test_a_service_probes_only_the_buckets_of_its_edges(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []

    async def consume(
        _settings: object, _world: object, _handler: object, buckets: list[str], *_probes: object, **_share: object
    ) -> None:
        probed.extend(buckets)

    @asynccontextmanager
    async def open_worlds(_settings: object) -> AsyncIterator[dict[str, World]]:
        yield {"totesys": World(FakeQueue(), FakeQueue(), FakeQueue(), FakeObjectStore())}

    async def database_url(*_arguments: object, **_named: object) -> SecretStr:
        return SecretStr("postgresql://me@127.0.0.1/nowhere")

    program = importlib.import_module(f"services.{service}.__main__")
    for replaced in (consume, open_worlds, database_url):
        monkeypatch.setattr(program, replaced.__name__, replaced, raising=replaced is not database_url)
    set_environment(monkeypatch, environment_for(service, resources(), read_topology()))
    await program.serve(SETTINGS[service]())
    wanted = read_topology().services[service]
    assert set(probed) == {resources().buckets[bucket] for bucket in (*wanted.reads, *wanted.writes)}


def test_the_operator_understands_the_environment_that_the_local_stack_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, environment_for("operator", resources(), read_topology()))
    settings = OperatorSettings()
    assert settings.loading_dead_letter_url == "http://127.0.0.1:1/loading-dlq"
    assert settings.warehouse_secret == "starlift/test/warehouse"  # noqa: S105 - a name


def test_a_source_of_files_or_of_an_api_has_its_own_schedule_and_no_database() -> None:
    csv = RecordForm(Format.CSV)
    delivered = {"budget": Dataset(csv), "region": Dataset(csv, request=Request(Api("https://example.com"), "/regions"))}
    tables = (replace(table, dataset=delivered.get(table.name)) for table in SEVERAL.source_tables)
    sources = sources_of(replace(SEVERAL, source_tables=tuple(tables)), "plans")
    assert sources == {"plans": Source(Kind.FILES, ("budget",)), "shop": Source(), "regions": Source(Kind.API)}
    topology = read_topology().with_sources(sources)
    assert topology.drop_zone == {"budget": "ingestion"}
    assert topology.secrets == ("source-shop", "warehouse")
    assert {schedule.source: schedule.expression for schedule in topology.schedules.values()} == {
        "plans": "rate(15 minutes)",
        "shop": "rate(1 minute)",
        "regions": "rate(60 minutes)",
    }


def test_only_databases_are_read_more_often_because_a_local_stack_is_in_a_hurry() -> None:
    sources = {"shop": Source(), "plans": Source(Kind.FILES, ("budget",)), "rates": Source(Kind.API)}
    schedules = read_topology().with_sources(sources).schedules.values()
    hurry = timedelta(seconds=2)
    assert [one.interval_instead_of(hurry) for one in schedules] == [hurry, timedelta(minutes=15), timedelta(hours=1)]
    assert [one.interval_instead_of(None) for one in schedules] == [one.interval for one in schedules]


def test_the_only_source_of_a_contract_may_be_of_files() -> None:
    budget = replace(BUDGET, source_name=None, dataset=Dataset(RecordForm(Format.CSV)))
    contract = replace(SEVERAL.part("plans"), source_tables=(budget,))
    assert contract.is_delivered("any name")
    topology = read_topology().with_sources(sources_of(contract, "plans"))
    assert topology.drop_zone == {"budget": "ingestion"}
    assert topology.secrets == ("warehouse",)


def test_every_service_and_the_operator_find_the_queues_and_secrets_of_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = read_topology().with_sources(sources_of(SEVERAL, "shop"))
    assert topology.dead_letter_name("loading-plans") == "starlift-loading-plans-dlq"
    assert [schedule.source for schedule in topology.schedules.values()] == ["shop", "plans", "regions"]
    Topology.model_validate(topology.model_dump())  # agrees with itself
    found = resources("plans", "regions")
    chosen = {"STARLIFT_SOURCE_NAME": "shop"}
    for service in SETTINGS:
        set_environment(monkeypatch, environment_for(service, found, topology) | chosen)
        plans = SETTINGS[service](contract=SEVERAL).by_source()["plans"]
        assert plans.queue_url == f"http://127.0.0.1:1/{topology.services[service].consumes}-plans"
        assert plans.dead_letter_url == f"{plans.queue_url}-dlq"
        assert plans.next_queue_url == f"http://127.0.0.1:1/{topology.services[service].sends[0]}-plans"
        if isinstance(plans, IngestionSettings):
            assert plans.source_secret == "starlift/test/source-plans"  # noqa: S105 - a name
    set_environment(monkeypatch, environment_for("operator", found, topology) | chosen)
    regions = OperatorSettings(contract=SEVERAL).by_source()["regions"]
    assert regions.loading_dead_letter_url == "http://127.0.0.1:1/loading-regions-dlq"
    assert (regions.source_secret, regions.warehouse_secret) == ("starlift/test/source-regions", "starlift/test/warehouse")
