from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from shared.errors import DependencyDownError, LoginRefusedError, PermanentError
from shared.service import World, aws_probes, consume, open_clients, require_access, run_service
from shared.settings import ServiceSettings
from shared.testing import FakeObjectStore, FakeQueue
from tests.fixtures.limits import HANG
from tests.fixtures.totesys import CONTRACT
from tests.unit.shared.consumer.scene import Script, body, until


class GivenSettings(ServiceSettings):
    """Complete without an environment."""

    service: str = "loading"
    region: str = "eu-west-2"
    queue_url: str = "https://sqs/1/loading"
    dead_letter_url: str = "https://sqs/1/loading-dlq"
    landing_bucket: str = "landing"
    processed_bucket: str = "processed"
    slots: int = 2
    handler_limit: timedelta = timedelta(minutes=15)
    poll_wait: timedelta = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def untouched_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.service.configure_logs", lambda *_arguments, **_named: None)


def world(outlet: FakeQueue | None = None) -> World:
    return World(FakeQueue("loading"), FakeQueue("loading-dlq"), outlet, FakeObjectStore("landing", "processed"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_runs_until_a_signal_and_exits_with_0(number: signal.Signals) -> None:
    handler = Script()

    async def serve(settings: GivenSettings) -> None:
        mine = world()
        await mine.queue.send(body())
        consuming = asyncio.create_task(consume(settings, mine, handler, ["landing"]))
        await until(lambda: len(handler.calls) == 1, within=HANG)
        os.kill(os.getpid(), number)
        await consuming
        assert (await mine.queue.depth()).in_flight == 0

    assert run_service(GivenSettings, serve) == 0


def test_a_service_also_works_on_a_queue_that_its_tasks_share() -> None:
    own, share = Script(), Script()

    async def serve(settings: GivenSettings) -> None:
        mine = replace(world(), shared=FakeQueue("chunks"), shared_dead_letters=FakeQueue("chunks-dlq"))
        assert mine.shared is not None
        consuming = asyncio.create_task(consume(settings, mine, own, ["landing"], share=share))
        await mine.shared.send(body())
        await mine.queue.send(body())
        await until(lambda: len(own.calls) == len(share.calls) == 1, within=HANG)
        os.kill(os.getpid(), signal.SIGTERM)
        await consuming
        assert [(await queue.depth()).in_flight for queue in (mine.queue, mine.shared)] == [0, 0]

    assert run_service(GivenSettings, serve) == 0


def test_help_needs_no_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def serve(_settings: ServiceSettings) -> None:
        raise AssertionError("must not start")

    monkeypatch.setattr("sys.argv", ["migrate", "--help"])
    assert run_service(ServiceSettings, serve) == 0
    assert capsys.readouterr().err == ""


def test_invalid_settings_exit_with_2_and_print_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    async def serve(_settings: ServiceSettings) -> None:
        raise AssertionError("must not start")

    assert run_service(ServiceSettings, serve) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("invalid settings: STARLIFT_REGION is missing; set it; ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [PermanentError("the secret is gone"), ExceptionGroup("", [ExceptionGroup("", [PermanentError("the secret is gone")])])],
)
def test_a_service_that_cannot_continue_logs_why_and_exits_with_1(error: Exception) -> None:
    async def serve(_settings: GivenSettings) -> None:
        raise error

    with capture_logs() as logs:
        assert run_service(GivenSettings, serve) == 1
    assert logs == [{"event": "service_failed", "error": "the secret is gone", "log_level": "error"}]


def test_a_bug_is_raised_unchanged() -> None:
    async def serve(_settings: GivenSettings) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_service(GivenSettings, serve)


def test_the_default_contract_needs_no_setting() -> None:
    assert GivenSettings().contract == CONTRACT


def test_a_service_without_a_next_queue_names_the_setting() -> None:
    outlet = FakeQueue("next")
    assert world(outlet).require_next_queue() is outlet
    with pytest.raises(PermanentError, match="set STARLIFT_NEXT_QUEUE_URL"):
        world().require_next_queue()


async def test_polls_and_other_requests_have_separate_connection_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    async with open_clients("eu-west-2") as clients:
        assert clients.receiver is not clients.control


@pytest.mark.parametrize(("profile", "region"), [("nope", "eu-west-2"), ("", "eu west 2")])
async def test_an_unknown_aws_profile_or_region_is_reported_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, profile: str, region: str
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(
        PermanentError, match=r"^AWS can't be addressed \(.*(nope|eu west 2).*\); correct AWS_PROFILE, the region"
    ):
        async with open_clients(region):
            pass


async def test_the_client_of_single_requests_never_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    async with open_clients("eu-west-2") as clients:
        assert vars(clients.once.meta.config)["retries"]["total_max_attempts"] == 1


async def test_the_probes_ask_every_queue_and_bucket_of_the_service_and_no_others() -> None:
    outlet, objects = FakeQueue("next"), FakeObjectStore("landing")
    mine = World(FakeQueue(), FakeQueue(), outlet, objects)
    await aws_probes(mine, ["landing"])["s3"]()
    probes = aws_probes(mine, ["landing", "processed"])
    await probes["sqs"]()
    outlet.faults.add("depth", DependencyDownError("sqs", "away"))
    with pytest.raises(DependencyDownError, match="away"):
        await probes["sqs"]()
    with pytest.raises(DependencyDownError, match="'processed' does not exist"):
        await probes["s3"]()


async def test_a_refusal_by_aws_stops_the_start_and_an_outage_does_not() -> None:
    outlet, objects = FakeQueue("next"), FakeObjectStore("landing")
    probes = aws_probes(World(FakeQueue(), FakeQueue(), outlet, objects), ["landing"])
    outlet.faults.add("depth", DependencyDownError("sqs", "away"))
    await require_access(probes)
    objects.faults.add("keys", PermanentError("s3 refused ListObjectsV2 on 'landing' (AccessDenied)"))
    with pytest.raises(PermanentError, match="refused ListObjectsV2"):
        await require_access(probes)


class Probes:
    """A database that is down at first and raises the next of `answers` at each probe; then it answers."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)

    async def __call__(self) -> None:
        if self.answers:
            raise self.answers.pop(0)


REFUSED = LoginRefusedError("warehouse", "the warehouse database refuses the user or the password")


async def test_a_refused_login_ends_a_service_before_it_receives_a_message() -> None:
    mine, handler = world(), Script()
    await mine.queue.send(body())
    with pytest.raises(PermanentError, match=r"^the warehouse database refuses the user"):
        await consume(GivenSettings(), mine, handler, ["landing"], {"warehouse": Probes(REFUSED)})
    assert (handler.calls, (await mine.queue.depth()).visible) == ([], 1)


@pytest.mark.virtual_clock
async def test_a_login_refused_after_an_outage_ends_a_service_in_its_first_minute_without_a_counted_attempt() -> None:
    mine, handler = world(), Script([REFUSED])
    await mine.queue.send(body())
    probe = Probes(DependencyDownError("warehouse", "away"), *[REFUSED] * 9)
    with pytest.raises(PermanentError, match=r"^the warehouse database refuses the user"):
        await consume(GivenSettings(), mine, handler, ["landing"], {"warehouse": probe})
    (delivery,) = await mine.queue.receive(1, wait=timedelta(0), visibility=timedelta(seconds=30))
    assert delivery.receive_count == 1


@pytest.mark.virtual_clock
async def test_a_login_refused_after_the_first_minute_is_waited_for() -> None:
    mine, handler = world(), Script([DependencyDownError("warehouse", "away"), REFUSED, REFUSED])
    probe = Probes(*[DependencyDownError("warehouse", "away")] * 20, *[REFUSED] * 9)
    await mine.queue.send(body())
    consuming = asyncio.create_task(consume(GivenSettings(), mine, handler, ["landing"], {"warehouse": probe}))
    await until(lambda: len(handler.calls) == 2, within=timedelta(hours=1))
    os.kill(os.getpid(), signal.SIGTERM)
    await consuming
