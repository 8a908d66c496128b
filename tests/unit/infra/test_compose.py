from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local.bootstrap import Resources
from infra.local.state import environment_for
from infra.topology import read_topology

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TOPOLOGY = read_topology()
QUEUES = f"http://localstack:4566/queue/{TOPOLOGY.region}/000000000000"
ENDS = {"bootstrap", "operator", "fill"}
COMMANDS = {"operator", "fill"}  # started by `docker compose run`


def resources() -> Resources:
    return Resources(
        stack="compose",
        region=TOPOLOGY.region,
        endpoint_url="http://localstack:4566",
        queue_urls={queue: f"{QUEUES}/{TOPOLOGY.queue_name(queue)}" for queue in TOPOLOGY.queues},
        dead_letter_urls={queue: f"{QUEUES}/{TOPOLOGY.dead_letter_name(queue)}" for queue in TOPOLOGY.queues},
        buckets={bucket: TOPOLOGY.bucket_name(bucket, "compose") for bucket in TOPOLOGY.buckets},
        secrets={secret: TOPOLOGY.secret_name(secret, "compose") for secret in TOPOLOGY.secrets},
    )


def test_the_file_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_existing_services_until_they_are_ready(name: str) -> None:
    for awaited, how in SERVICES[name].get("depends_on", {}).items():
        assert awaited in SERVICES
        wanted = "service_completed_successfully" if awaited in ENDS else "service_healthy"
        assert how["condition"] == wanted


@pytest.mark.parametrize("name", SERVICES)
def test_every_mount_is_declared_or_exists(name: str) -> None:
    for source in (volume.partition(":")[0] for volume in SERVICES[name].get("volumes", ())):
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_no_declared_volume_is_left_over() -> None:
    mounted = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert set(COMPOSE["volumes"]) <= mounted


@pytest.mark.parametrize("name", [name for name in SERVICES if "image" in SERVICES[name]])
def test_a_third_party_image_is_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:\d[\w.-]*", SERVICES[name]["image"])


@pytest.mark.parametrize("name", [name for name in SERVICES if "build" in SERVICES[name]])
def test_our_containers_have_no_needless_privileges(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ENDS))
def test_a_service_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_published_ports_listen_only_on_localhost(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", TOPOLOGY.services)
def test_a_service_gets_the_environment_of_the_topology(name: str) -> None:
    assert SERVICES[name]["environment"] == environment_for(name, resources(), TOPOLOGY)


def test_the_operator_gets_the_environment_of_the_topology() -> None:
    assert SERVICES["operator"]["environment"] == environment_for("operator", resources(), TOPOLOGY)


def test_a_command_is_started_by_run_alone_once_the_stack_is_set_up() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" in service} == COMMANDS
    for name in COMMANDS:
        assert SERVICES[name]["depends_on"] == {"bootstrap": {"condition": "service_completed_successfully"}}
        assert SERVICES[name]["restart"] == "no"
        assert SERVICES[name]["build"]["args"] == {"SERVICE": "operator"}
    assert SERVICES["operator"]["entrypoint"] == ["python", "-m", "services.operator"]


def test_the_databases_keep_their_data_where_their_version_looks_for_it() -> None:
    """Up to 17 the image keeps it in /var/lib/postgresql/data; from 18 on it refuses a volume there."""
    for name in ("source", "warehouse"):
        major = int(SERVICES[name]["image"].removeprefix("postgres:").partition(".")[0])
        mounted = [volume.split(":")[1] for volume in SERVICES[name]["volumes"] if volume.startswith(f"{name}:")]
        assert mounted == ["/var/lib/postgresql" if major >= 18 else "/var/lib/postgresql/data"]


def test_the_set_up_is_awaited_by_a_service_that_stays() -> None:
    """Otherwise `docker compose up --wait` takes its end for a failure."""
    for ended in ENDS - COMMANDS:
        awaited = [SERVICES[name]["depends_on"].get(ended) for name in SERVICES.keys() - ENDS if "depends_on" in SERVICES[name]]
        assert {"condition": "service_completed_successfully"} in awaited


def test_the_schedule_sends_to_the_queue_of_the_topology() -> None:
    (schedule,) = TOPOLOGY.schedules.values()
    assert SERVICES["schedule"]["environment"]["STARLIFT_INGESTION_QUEUE_URL"] == resources().queue_urls[schedule.queue]


def test_the_set_up_gets_the_url_of_every_secret() -> None:
    told = SERVICES["bootstrap"]["environment"]
    assert {f"STARLIFT_{secret.upper()}_URL" for secret in TOPOLOGY.secrets} <= told.keys()
    assert told["STARLIFT_STACK"] == "compose"


@pytest.mark.parametrize("name", [name for name in SERVICES if "build" in SERVICES[name]])
def test_an_image_has_a_lock_and_a_stage_and_stops_in_time(name: str) -> None:
    image = SERVICES[name]["build"]["args"]["SERVICE"]
    assert (ROOT / f"infra/locks/{image}.txt").exists()
    assert f"FROM runtime AS {image}\n" in DOCKERFILE
    if name not in ENDS:
        assert SERVICES[name]["stop_grace_period"] == f"{TOPOLOGY.stop_timeout_s}s"


def test_every_copied_file_exists() -> None:
    for arguments in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in arguments.split()[:-1]:
            assert list(ROOT.glob(source.replace("${SERVICE}", "*"))), source
