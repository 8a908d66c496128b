from __future__ import annotations

import aiohttp
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ParamValidationError

from shared.aws_errors import aws_errors
from shared.errors import DependencyDownError, LoginRefusedError, PermanentError, TransientError

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
        (answer("ExpiredToken", 403), LoginRefusedError, "rejects the credentials or the clock"),
        (answer("RequestTimeout", 400), DependencyDownError, "fails"),
        (answer("AccessDenied", 403), PermanentError, "refused SendMessage on 'loading' (AccessDenied); check the permissions"),
        (
            answer("AccessDenied", 403, "GetObject"),
            PermanentError,
            "(AccessDenied), or the object is missing and s3:ListBucket is not granted on the bucket; check",
        ),
        (answer("InvalidParameterValue", 400), PermanentError, "refused"),
        (EndpointConnectionError(endpoint_url="x"), DependencyDownError, "can't be reached for 'loading'"),
        (NoCredentialsError(), LoginRefusedError, "NoCredentialsError"),
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
