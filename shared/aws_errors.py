"""What an AWS error means for us, by recovery."""

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

from shared.errors import DependencyDownError, PermanentError, TransientError

_SERVER_FAULT = 500
_ABSENT = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NoSuchBucket"})
_THROTTLED = frozenset(
    {"RequestThrottled", "SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"}
)
# Credentials come from outside, change while we run, and concern every message, as a clock that is wrong does: never a reason
# to give one message up.
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
_STALLED = frozenset({"RequestTimeout", "RequestTimeoutException"})


@contextmanager
def aws_errors(dependency: str, target: str) -> Iterator[None]:
    """Turns what botocore and aiohttp raise about `target` into our errors; `dependency` names the probe: sqs, s3.

    Raises: TransientError when throttled; DependencyDownError when AWS can't be reached, fails, or lacks the queue or bucket;
    PermanentError when AWS refuses the request.
    """
    try:
        yield
    except ClientError as error:
        raise classed(error, dependency, target) from error
    except ParamValidationError as error:
        raise PermanentError(f"the request to {dependency} about '{target}' is malformed; this is a bug, report it") from error
    except _NO_CREDENTIALS as error:
        text = (
            f"{dependency} can't be asked about '{target}' without credentials ({type(error).__name__}); provide or renew them"
        )
        raise DependencyDownError(dependency, text) from error
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        text = f"{dependency} can't be reached about '{target}' ({type(error).__name__}); check the network and the endpoint"
        raise DependencyDownError(dependency, text) from error


def error_code(error: ClientError) -> str:
    """AWS's name of an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_throttling(code: str) -> bool:
    """Whether AWS asks us to slow down."""
    return code.rpartition(".")[2] in _THROTTLED


def classed(error: ClientError, dependency: str, target: str) -> Exception:
    """Our error for an answer of AWS."""
    code = error_code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _ABSENT:
        set_up = "rerun the set-up (`starlift up` on a local stack, `terraform apply` on AWS)"
        return DependencyDownError(dependency, f"'{target}' does not exist ({code}); {set_up}")
    if is_throttling(code):
        return TransientError(f"{dependency} throttles requests about '{target}' ({code}); trying later")
    if code in _CREDENTIALS:
        what = f"{dependency} refuses our credentials or our clock about '{target}' ({code}); correct them"
        return DependencyDownError(dependency, what)
    if code in _STALLED or status >= _SERVER_FAULT:
        what = f"{dependency} fails about '{target}' ({code or status}); try again when it has recovered"
        return DependencyDownError(dependency, what)
    advice = "check the permissions of the task's role, then replay the dead letters"
    return PermanentError(f"{dependency} refused {error.operation_name} on '{target}' ({code or status}); {advice}")
