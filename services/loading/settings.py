"""Settings of loading, besides those of every service."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import ServiceSettings


class LoadingSettings(ServiceSettings):
    """Where the warehouse is: its URL, or a secret that holds the URL or the login."""

    service: str = "loading"
    warehouse_url: SecretStr | None = None  # see shared/database_url.py
    warehouse_secret: str | None = None  # the id of a secret in AWS Secrets Manager
