"""SQS's own move task: everything, unchanged, without an audit. For who wants just that, and to keep out of its way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from shared.aws_errors import aws_errors
from shared.queue import ANSWER_TIMEOUT

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

RATE_MAXIMUM = 500  # messages a second, SQS
_UNDER_WAY = frozenset({"RUNNING", "CANCELLING"})


class MoveTasks(Protocol):
    """SQS's move tasks of one dead-letter queue. Raises TransientError, DependencyDownError("sqs") and PermanentError."""

    async def is_running(self) -> bool:
        """Whether SQS moves letters out of the queue."""
        ...

    async def start(self, rate: int) -> None:
        """Let SQS move every letter to its service's queue, `rate` (at most 500) a second."""
        ...


class SqsMoveTasks:
    """The tasks that move from the dead-letter queue at one URL to the queue at another."""

    def __init__(self, client: SQSClient, *, dead_url: str, url: str) -> None:
        self._client = client
        self._dead_url = dead_url
        self._url = url

    async def is_running(self) -> bool:
        """See MoveTasks."""
        source = await self._arn(self._dead_url)
        with aws_errors("sqs", self._dead_url):
            async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
                answer = await self._client.list_message_move_tasks(SourceArn=source)
        return any(task.get("Status") in _UNDER_WAY for task in answer.get("Results", ()))

    async def start(self, rate: int) -> None:
        """See MoveTasks. The destination is named: SQS does not know whence the letters come that a service has sent there."""
        source, destination = await self._arn(self._dead_url), await self._arn(self._url)
        with aws_errors("sqs", self._dead_url):
            async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
                await self._client.start_message_move_task(
                    SourceArn=source, DestinationArn=destination, MaxNumberOfMessagesPerSecond=min(rate, RATE_MAXIMUM)
                )

    async def _arn(self, url: str) -> str:
        with aws_errors("sqs", url):
            async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
                answer = await self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]
