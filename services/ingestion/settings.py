"""What ingestion is told by its environment, beyond what every service is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from services.ingestion.plan import COMPARE_KEYS_EVERY
from services.ingestion.source import BatchLimits
from shared.settings import ServiceSettings


class IngestionSettings(ServiceSettings):
    """`source_url` or the secret `source_secret` says where the source is. A large load is cut at `batch_rows`.

    Every `compare_keys_every`th run looks for deleted rows, too; 0: only full runs, and those that are asked to.
    """

    service: str = "ingestion"
    source_url: SecretStr | None = None
    source_secret: str | None = None
    batch_rows: Annotated[int, Field(ge=1)] = BatchLimits().rows
    compare_keys_every: Annotated[int, Field(ge=0)] = COMPARE_KEYS_EVERY
