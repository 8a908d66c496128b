"""What remodelling is told by its environment: what every service is."""

from __future__ import annotations

from shared.settings import ServiceSettings


class RemodellingSettings(ServiceSettings):
    """Nothing of its own."""

    service: str = "remodelling"
