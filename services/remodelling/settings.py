"""Settings of remodelling: those of every service."""

from __future__ import annotations

from shared.settings import ServiceSettings


class RemodellingSettings(ServiceSettings):
    """Settings of remodelling."""

    service: str = "remodelling"
