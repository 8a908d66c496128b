"""AWS errors, classed by what recovers them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSOError,
)

from shared.errors import DependencyDownError, LoginRefusedError, PermanentError, TransientError

_SERVER_FAULT = 500
_FORBIDDEN = 403
_READS = frozenset({"GetObject", "HeadObject"})
_ABSENT = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NoSuchBucket"})
_TOO_MANY_REQUESTS = 429
# OverLimit: as many messages in flight as SQS allows. KmsThrottled: too many requests for the queue's encryption key.
_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "KmsThrottled",
        "OverLimit",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
# Credentials come from outside, change while we run, and concern every message, as a wrong clock does: never a reason to give
# up a single message.
_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, SSOError)  # likewise
_ENCRYPTION_KEY = ("Kms", "KMS.")  # of SQS, of S3: the key of a queue or a bucket concerns every message, as credentials do
_STALLED = frozenset({"RequestTimeout", "RequestTimeoutException"})


@contextmanager
def aws_errors(dependency: str, target: str) -> Iterator[None]:
    """Turn what botocore and aiohttp raise about `target` into our errors; `dependency` names the probe: sqs, s3.

    Raises: TransientError when throttled; DependencyDownError when AWS can't be reached, fails, or lacks the queue or bucket;
    PermanentError when AWS refuses the request.
    """
    try:
        yield
    except ClientError as error:
        raise classed(error, dependency, target) from error
    except ParamValidationError as error:
        raise PermanentError(
            f"the request to {dependency} for '{target}' is malformed; this is a bug, please report it"
        ) from error
    except _NO_CREDENTIALS as error:
        text = f"{dependency} can't be called for '{target}' without credentials ({type(error).__name__}); set or renew them"
        raise LoginRefusedError(dependency, text) from error
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        text = f"{dependency} can't be reached for '{target}' ({type(error).__name__}); check the network and the endpoint"
        raise DependencyDownError(dependency, text) from error


def error_code(error: ClientError) -> str:
    """AWS's name of an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_throttling(code: str) -> bool:
    """Whether AWS asks us to slow down."""
    return code.rpartition(".")[2] in _THROTTLED


def classed(error: ClientError, dependency: str, target: str) -> Exception:
    """Our error for an error response of AWS."""
    code = error_code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _ABSENT:
        set_up = "rerun the set-up (`starlift up` on a local stack, `terraform apply` on AWS)"
        return DependencyDownError(dependency, f"'{target}' does not exist ({code}); {set_up}")
    if is_throttling(code) or status == _TOO_MANY_REQUESTS:
        return TransientError(f"{dependency} throttles requests for '{target}' ({code or status}); they are retried later")
    if code in _CREDENTIALS:
        what = f"{dependency} rejects the credentials or the clock of a request for '{target}' ({code}); correct them"
        return LoginRefusedError(dependency, what)
    if code in _STALLED or status >= _SERVER_FAULT:
        what = f"{dependency} fails requests for '{target}' ({code or status}); try again when it has recovered"
        return DependencyDownError(dependency, what)
    if code.startswith(_ENCRYPTION_KEY):
        what = f"the encryption key of '{target}' can't be used ({code}); enable it, or grant its use to the task's role"
        return DependencyDownError(dependency, what)
    what = f"{dependency} refused {error.operation_name} on '{target}' ({code or status})"
    advice = "check the permissions of the role that asked"
    if error.operation_name in _READS and status == _FORBIDDEN:
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html: 403 in place of 404 without s3:ListBucket
        return PermanentError(f"{what}, or the object is missing and s3:ListBucket is not granted on the bucket; {advice}")
    return PermanentError(f"{what}; {advice}")
