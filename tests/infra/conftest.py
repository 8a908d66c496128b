"""Terraform on the stand-in, applied once for all tests that only read the result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.local.bootstrap import Resources, bootstrap, client
from infra.local.localstack import LocalStack
from infra.topology import read_topology
from tests.infra.offline.core import Resource, Terraform, opened
from tests.infra.offline.tools import CHECKOUT
from tests.infra.planting import Plant, plant

STACK = "dev-123456789012"  # as Terraform names the buckets of dev


@dataclass(frozen=True, slots=True)
class Applied:
    """The state after an apply on the stand-in: nothing on AWS."""

    resources: list[Resource]
    outputs: dict[str, Any]

    def of_type(self, name: str) -> list[Resource]:
        """The resources of one type."""
        return [resource for resource in self.resources if resource.type == name]


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    with opened(CHECKOUT, tmp_path_factory.mktemp("terraform")) as opened_terraform:
        yield opened_terraform


@pytest.fixture(scope="session")
def applied(terraform: Terraform) -> Applied:
    """Under the names of dev, with the sizes and schedules of prod, which are the topology's."""
    of_dev = {"environment": "dev", "log_retention_days": 14, "may_destroy_data": True}
    return Applied(terraform.apply("prod", has_images=True, **of_dev), terraform.outputs())


@pytest.fixture(scope="session")
def local(localstack: LocalStack) -> Resources:
    urls = {secret: f"postgresql://me@127.0.0.1/{secret}" for secret in read_topology().secrets}
    return bootstrap(read_topology(), localstack.endpoint_url, STACK, urls)


@pytest.fixture(scope="session")
def sqs(local: Resources) -> Iterator[Any]:
    with closing(client("sqs", local.endpoint_url, local.region)) as opened:
        yield opened


@pytest.fixture
def planted(tmp_path: Path) -> Plant:
    """Makes a copy of the checkout's infrastructure and plants mistakes in it."""
    return partial(plant, tmp_path / "planted")
