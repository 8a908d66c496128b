"""What loading is told by its environment, beyond what every service is."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import ServiceSettings


class LoadingSettings(ServiceSettings):
    """`warehouse_url` or the secret `warehouse_secret` says where the warehouse is."""

    service: str = "loading"
    warehouse_url: SecretStr | None = None
    warehouse_secret: str | None = None
