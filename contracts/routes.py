"""Which service consumes what: one queue for each service, called after it, and the messages it carries."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from contracts.messages import BatchIngested, BatchRemodelled, IngestSource, message_type


@dataclass(frozen=True, slots=True)
class Route:
    """A queue and the service that consumes it: what the queue carries, and who sends that."""

    service: str
    model: type[BaseModel]
    senders: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The type of its messages, such as `starlift.batch_ingested.v2`."""
        return message_type(self.model)


ROUTES = (
    Route("ingestion", IngestSource, ("scheduler", "operator")),
    Route("remodelling", BatchIngested, ("ingestion", "operator")),
    Route("loading", BatchRemodelled, ("remodelling",)),
)
