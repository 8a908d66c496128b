"""Clients for the set-up: synchronous, by localstack-client."""

from __future__ import annotations

from typing import Any

from botocore.config import Config
from localstack_client.session import Session

_CONFIG = Config(connect_timeout=2, read_timeout=30, retries={"total_max_attempts": 2})


def client(service: str, endpoint_url: str, region: str) -> Any:
    """A boto3 client of LocalStack. The region is always said: localstack-client would ignore the environment's."""
    session = Session(region_name=region)
    # It prefers $AWS_ENDPOINT_URL to its own argument; the stack's own endpoint must win.
    session._service_endpoint_mapping = {service: endpoint_url}  # noqa: SLF001
    return session.client(service, config=_CONFIG)


def create_bucket(s3: Any, name: str, region: str) -> None:
    """Creates a bucket; S3 wants its own region told, and us-east-1 not."""
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    s3.create_bucket(Bucket=name, **where)
