"""Settings of ingestion, besides those of every service."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, InstanceOf, SecretStr
from pydantic_settings import NoDecode

from services.ingestion.api.guard import Allowed
from services.ingestion.plan import COMPARE_KEYS_EVERY
from services.ingestion.source import BatchLimits
from shared.settings import ServiceSettings


class IngestionSettings(ServiceSettings):
    """Settings of ingestion."""

    service: str = "ingestion"
    source_url: SecretStr | None = None  # of the source database; or:
    source_secret: str | None = None  # the id of its secret in AWS Secrets Manager
    batch_rows: Annotated[int, Field(ge=1)] = BatchLimits().rows  # at which a large load is cut into batches
    # How often keys are compared, to find deleted rows: every how many runs; 0: only by full runs, and on request.
    compare_keys_every: Annotated[int, Field(ge=0)] = COMPARE_KEYS_EVERY
    # Of sources that are APIs. What may be asked although it is not public, or without encryption: networks, addresses, hosts.
    api_allow: Annotated[InstanceOf[Allowed], NoDecode, BeforeValidator(Allowed.parse)] = Field("", validate_default=True)
    api_secrets: str = ""  # what the names of their secrets begin with: starlift/production/sources/
    api_proxy: SecretStr | None = None  # the URL of a proxy, which then enforces what may be asked
