"""One LocalStack for all tests that need one, started on demand by the product's own starter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.local.localstack import LocalStack, start_localstack
from infra.local.ports import free_port

REGION = "eu-west-2"


@pytest.fixture(scope="session")
def localstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Shared: give queues and buckets names of your own."""
    running = start_localstack(tmp_path_factory.mktemp("localstack"), port=free_port(), region=REGION)
    yield running
    running.stop()
