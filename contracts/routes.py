"""Which service consumes what: one queue for each service, called after it, and the messages it carries."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from contracts.messages import BatchIngested, BatchRemodelled, ExtractChunk, IngestSource, LookUpKeys, message_type


@dataclass(frozen=True, slots=True)
class Route:
    """A message that the queue of `service` carries, and who sends it."""

    service: str
    model: type[BaseModel]
    senders: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The type of the message, such as `starlift.batch_ingested.v5`."""
        return message_type(self.model)


ROUTES = (
    Route("ingestion", IngestSource, ("scheduler", "operator")),
    Route("ingestion", LookUpKeys, ("loading",)),
    Route("chunks", ExtractChunk, ("ingestion",)),  # the second queue of ingestion
    Route("remodelling", BatchIngested, ("ingestion", "operator")),
    Route("loading", BatchRemodelled, ("remodelling",)),
)
