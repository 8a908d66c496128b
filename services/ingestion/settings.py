"""What ingestion is told by its environment, beyond what every service is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from services.ingestion.extraction import BATCH_ROWS
from shared.settings import ServiceSettings


class IngestionSettings(ServiceSettings):
    """`source_url` or the secret `source_secret` says where the source is. A large load is cut at `batch_rows`."""

    service: str = "ingestion"
    source_url: SecretStr | None = None
    source_secret: str | None = None
    batch_rows: Annotated[int, Field(ge=1)] = BATCH_ROWS
