from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from random import Random

import aiohttp
import pytest
from aiohttp import web
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ParamValidationError
from hypothesis import given
from hypothesis import strategies as st

from contracts.failure import FAILURE_TEXT_BYTES_MAXIMUM, FailureReason, FailureRecord, normalised
from contracts.messages import MESSAGE_BYTES_MAXIMUM, decode
from shared import health
from shared.aws_errors import aws_errors
from shared.consumer.attempt import read_attempt
from shared.consumer.backoff import probe_delay, retry_delay
from shared.consumer.dead_letter import dead_letter_attributes, fingerprint
from shared.consumer.task_protection import protection
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.outcome import DeadLetter
from shared.queue import Delivery
from shared.testing import EPOCH, FakeQueue
from tests.fixtures.limits import HANG
from tests.unit.shared.consumer.scene import RULES, until

ANY_SEED = st.integers(0, 2**32)


@given(attempt=st.integers(1, 10_000), seed=ANY_SEED)
def test_the_backoff_of_an_attempt_is_half_to_all_of_a_doubling_span(attempt: int, seed: int) -> None:
    longest = min(900, 5 * 2 ** (attempt - 1))
    assert longest / 2 <= retry_delay(attempt, Random(seed)).total_seconds() <= longest  # noqa: S311 - a seed's draws


@given(failures=st.integers(1, 10_000), seed=ANY_SEED)
def test_the_backoff_of_a_probe_is_zero_to_all_of_a_doubling_span(failures: int, seed: int) -> None:
    assert 0 <= probe_delay(failures, Random(seed)).total_seconds() <= min(30, 2 ** (failures - 1))  # noqa: S311 - a seed's draws


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=200))
def test_a_failure_record_holds_any_text_cut_and_escaped_for_sqs(text: str) -> None:
    attempt = read_attempt(Delivery("id", "body", "receipt", 1, EPOCH, EPOCH), EPOCH)
    outcome = DeadLetter(FailureReason.PERMANENT, PermanentError(text))
    (attribute,) = dead_letter_attributes(attempt, outcome, rules=RULES, queue="loading", now=EPOCH).values()
    message = FailureRecord.model_validate_json(attribute).message
    assert attribute.isascii()
    assert min(attribute) >= " "
    assert len(message.encode()) <= FAILURE_TEXT_BYTES_MAXIMUM
    assert text.startswith(message)


def caught(body: str) -> Exception:
    try:
        decode(body)
    except ValueError as error:
        return error
    raise AssertionError(body)


def test_failures_share_a_fingerprint_exactly_when_they_share_a_cause() -> None:
    assert fingerprint(caught("1")) == fingerprint(caught("2"))
    assert fingerprint(caught('{"type": "x"}')) == fingerprint(caught('{"type": "starlift.y.v1"}'))
    assert fingerprint(caught("1")) != fingerprint(caught('{"type": "x"}'))
    assert fingerprint(ValueError("1")) != fingerprint(TypeError("1"))
    assert fingerprint(PermanentError("run 7 has no manifest")) == fingerprint(PermanentError("run 8 has no manifest"))
    assert fingerprint(PermanentError("run 7 has no manifest")) != fingerprint(PermanentError("run 7 has no snapshot"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("table 'staff' lacks column 'email'", "table 'sales order' lacks column 'id'"),
        ("'a/b.parquet' has 17 bytes with sha256 " + "ab" * 32, "'c' has 1,024 bytes with sha256 " + "0f" * 32),
        ("batch 5e1f1c1e-57a7-5c4e-8a3a-0d1f7a5e9b21 is gone", "batch 00000000-57a7-5c4e-8a3a-0d1f7a5e9b21 is gone"),
        (
            "can't read 'x', and isn't cut off here: 'start of a na",
            "can't read 'y', and isn't cut off here: 'another",
        ),
        ("unexpected KeyError in services.x, line 12", "unexpected KeyError in services.x, line 340"),
        ("until 2026-11-01 09:30:00", "until 2027-01-31 23:59:59.5"),
    ],
)
def test_error_texts_are_compared_without_names_ids_hashes_and_numbers(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert normalised(one) != normalised(f"not {other}")


# As the error lists of S3 and of SQS have them, with their statuses.
WRONG_CREDENTIALS = (
    ("ExpiredToken", 400),
    ("ExpiredTokenException", 400),
    ("IncompleteSignature", 403),
    ("InvalidAccessKeyId", 403),
    ("InvalidClientTokenId", 403),
    ("InvalidToken", 400),
    ("RequestExpired", 400),
    ("RequestTimeTooSkewed", 403),
    ("SignatureDoesNotMatch", 403),
    ("TokenRefreshRequired", 400),
    ("UnrecognizedClientException", 400),
)


def answer(code: str, status: int, operation: str = "SendMessage") -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (answer("AWS.SimpleQueueService.NonExistentQueue", 400), DependencyDownError, "does not exist"),
        (answer("QueueDoesNotExist", 400), DependencyDownError, "rerun the set-up"),
        (answer("NoSuchBucket", 404), DependencyDownError, "rerun the set-up"),
        (answer("RequestThrottled", 403), TransientError, "throttles"),
        (answer("SlowDown", 503), TransientError, "throttles"),
        (answer("OverLimit", 403), TransientError, "throttles"),
        (answer("KmsThrottled", 400), TransientError, "throttles"),
        (answer("KMS.ThrottlingException", 400), TransientError, "throttles"),
        (answer("", 429), TransientError, "(429)"),
        (answer("KmsDisabled", 400), DependencyDownError, "the encryption key of 'loading' can't be used (KmsDisabled)"),
        (answer("InternalError", 500), DependencyDownError, "fails"),
        (answer("", 503), DependencyDownError, "(503)"),
        (answer("ExpiredToken", 403), DependencyDownError, "rejects the credentials or the clock"),
        (answer("RequestTimeout", 400), DependencyDownError, "fails"),
        (answer("AccessDenied", 403), PermanentError, "refused SendMessage on 'loading' (AccessDenied); check the permissions"),
        (
            answer("AccessDenied", 403, "GetObject"),
            PermanentError,
            "(AccessDenied), or the object is missing and s3:ListBucket is not granted on the bucket; check",
        ),
        (answer("InvalidParameterValue", 400), PermanentError, "refused"),
        (EndpointConnectionError(endpoint_url="x"), DependencyDownError, "can't be reached for 'loading'"),
        (NoCredentialsError(), DependencyDownError, "NoCredentialsError"),
        (aiohttp.ClientPayloadError(), DependencyDownError, "ClientPayloadError"),
        (TimeoutError(), DependencyDownError, "TimeoutError"),
        (ParamValidationError(report="x"), PermanentError, "malformed"),
    ],
)
def test_an_aws_error_is_classified_by_what_recovers_it(error: Exception, expected: type[Exception], text: str) -> None:
    with pytest.raises(expected) as raised, aws_errors("sqs", "loading"):
        raise error
    assert text in str(raised.value)


@pytest.mark.parametrize(("code", "status"), WRONG_CREDENTIALS)
def test_wrong_credentials_or_a_wrong_clock_cost_no_attempt(code: str, status: int) -> None:
    with pytest.raises(DependencyDownError, match=code), aws_errors("s3", "landing/x"):
        raise answer(code, status)


async def test_a_message_that_sqs_would_reject_is_refused_before_it_is_sent() -> None:
    queue = FakeQueue("loading")
    await queue.send("é" * (MESSAGE_BYTES_MAXIMUM // 2))
    with pytest.raises(PermanentError, match="1048579 bytes, SQS takes 1048576; put the data into an object"):
        await queue.send("é" * (MESSAGE_BYTES_MAXIMUM // 2) + "xyz")
    with pytest.raises(PermanentError, match="delayed by 0 to 15 minutes"):
        await queue.send("x", delay=timedelta(minutes=16))
    assert len(queue.messages) == 1


def test_health_is_the_age_of_the_last_beat(tmp_path: Path) -> None:
    file = tmp_path / "beat"
    assert health.main([str(file), "60"]) == 1
    health.beat(file, [])
    assert health.main([str(file), "60"]) == 0
    assert health.main([str(file), "-1"]) == 1


async def test_the_task_is_protected_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.consumer.task_protection._TURN", timedelta(milliseconds=10))
    refused = {"failure": {"Reason": "DEPLOYMENT_BLOCKED"}}  # ECS says so with HTTP 200
    answers: list[tuple[int, object]] = [(500, {}), (200, refused), (200, {"protection": {}})]
    told: list[dict[str, object]] = []
    working = True

    async def state(request: web.Request) -> web.Response:
        told.append(await request.json())
        status, body = answers[min(len(told), len(answers)) - 1]
        return web.json_response(body, status=status)

    application = web.Application()
    application.router.add_put("/task-protection/v1/state", state)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with protection(f"http://127.0.0.1:{runner.addresses[0][1]}", lambda: working):
            await until(lambda: len(told) == len(answers), within=HANG)
            working = False
            await until(lambda: len(told) == len(answers) + 1, within=HANG)
    finally:
        await runner.cleanup()
    assert told == [{"ProtectionEnabled": True, "ExpiresInMinutes": 20}] * len(answers) + [{"ProtectionEnabled": False}]
