"""Which client SqsQueue calls, and with which timeouts. The conformance suite tests the answers of SQS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from shared.errors import DependencyDownError
from shared.queue import ANSWER_TIMEOUT, POLL_GRACE, RECEIPT_TIMEOUT, Failures, Outgoing, SqsQueue
from tests.unit.shared.consumer.scene import now

pytestmark = pytest.mark.virtual_clock
WAIT = timedelta(seconds=20)
DEPTH = {f"ApproximateNumberOfMessages{kind}": "1" for kind in ("", "NotVisible", "Delayed")}


class Client:
    """Answers each request after `takes`; `asked` are the names of the methods, `entries` those of the last batch.

    `failed` are codes of the first entries.
    """

    def __init__(self, takes: timedelta = timedelta(0), failed: tuple[tuple[str, bool], ...] = ()) -> None:
        self.asked: list[str] = []
        self.entries: list[dict[str, Any]] = []
        self._takes = takes
        self._failed = [
            {"Id": str(index), "Code": code, "SenderFault": is_ours} for index, (code, is_ours) in enumerate(failed)
        ]

    def __getattr__(self, method: str) -> Callable[..., Awaitable[dict[str, object]]]:
        async def ask(**request: Any) -> dict[str, object]:
            self.asked.append(method)
            self.entries = request.get("Entries", [])
            await asyncio.sleep(self._takes.total_seconds())
            return {"MessageId": "1", "Attributes": DEPTH, "Failed": self._failed}

        return ask


def queue_of(receiver: Any, control: Any, once: Any = None) -> SqsQueue:
    return SqsQueue("https://sqs/1/loading", receiver=receiver, control=control, once=once)


REQUESTS: list[tuple[Callable[[SqsQueue], Awaitable[object]], timedelta]] = [
    (lambda queue: queue.delete(["a"]), RECEIPT_TIMEOUT),
    (lambda queue: queue.set_visibility({"a": WAIT}), RECEIPT_TIMEOUT),
    (lambda queue: queue.send("x"), ANSWER_TIMEOUT),
    (lambda queue: queue.depth(), ANSWER_TIMEOUT),
]


@pytest.mark.parametrize(("request_of", "limit"), REQUESTS)
async def test_every_request_but_a_poll_goes_to_the_control_client_and_has_a_timeout(
    request_of: Callable[[SqsQueue], Awaitable[object]], limit: timedelta
) -> None:
    receiver, control = Client(), Client(takes=timedelta(hours=1))
    with pytest.raises(DependencyDownError, match="can't be reached for 'loading'"):
        await request_of(queue_of(receiver, control))
    assert now() == pytest.approx(limit.total_seconds())
    assert (receiver.asked, len(control.asked)) == ([], 1)


async def test_batches_are_sent_by_the_client_that_never_retries() -> None:
    control, once = Client(), Client(takes=timedelta(hours=1))
    queue = queue_of(Client(), control, once)
    with pytest.raises(DependencyDownError, match="can't be reached for 'loading'"):
        await queue.send_all([Outgoing("a"), Outgoing("b")])
    assert (once.asked, control.asked) == (["send_message_batch"], [])


async def test_missing_credentials_are_named_in_the_error() -> None:
    class Nameless:
        async def get_queue_attributes(self, **_request: object) -> None:
            raise NoCredentialsError

    text = r"sqs can't be called for 'loading' without credentials \(NoCredentialsError\); set or renew them"
    with pytest.raises(DependencyDownError, match=text):
        await queue_of(Client(), Nameless()).depth()


async def test_a_poll_has_its_own_client_and_hangs_for_at_most_ten_seconds() -> None:
    receiver, control = Client(takes=timedelta(hours=1)), Client()
    with pytest.raises(DependencyDownError):
        await queue_of(receiver, control).receive(1, wait=WAIT, visibility=WAIT)
    assert now() == pytest.approx((WAIT + POLL_GRACE).total_seconds())
    assert (receiver.asked, control.asked) == (["receive_message"], [])


async def test_a_short_span_is_rounded_up_to_one_second() -> None:
    """SQS counts in seconds, and zero would hand a message back at once."""
    control = Client()
    await queue_of(Client(), control).set_visibility(
        {"a": timedelta(seconds=0.2), "b": timedelta(seconds=59.1), "c": timedelta(0)}
    )
    assert [entry["VisibilityTimeout"] for entry in control.entries] == [1, 60, 0]


async def test_receipt_errors_of_a_batch_are_final_and_the_others_transient() -> None:
    failed = (
        ("ReceiptHandleIsInvalid", True),
        ("MessageNotInflight", True),
        ("InvalidParameterValue", True),
        ("RequestThrottled", True),
        ("InternalError", False),
    )
    queue = queue_of(Client(), Client(failed=failed))
    expected = Failures(gone=frozenset("abc"), transient=frozenset("de"))
    assert await queue.delete("abcdef") == expected
    assert await queue.set_visibility(dict.fromkeys("abcdef", WAIT)) == expected
