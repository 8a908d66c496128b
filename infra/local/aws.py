"""Clients for the set-up: synchronous, by localstack-client."""

from __future__ import annotations

import os
from typing import Any

import boto3  # type: ignore[import-untyped]  # no stubs
import botocore.session
from botocore.config import Config
from localstack_client.session import Session

# No proxy: LocalStack is on this machine, or beside us in a network of containers.
_CONFIG = Config(connect_timeout=10, read_timeout=60, retries={"total_max_attempts": 2}, proxies={})
# The person's own AWS stays out: (name in the configuration file, variable, default, conversion).
_NOTHING_OF_THE_PERSON: dict[str, tuple[None, None, str | None, None]] = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


def client(service: str, endpoint_url: str, region: str) -> Any:
    """A boto3 client of LocalStack. The region is always said: localstack-client would ignore the environment's."""
    # It builds on boto3's default session, which would look for $AWS_PROFILE; nothing else of ours uses that session.
    boto3.setup_default_session(botocore_session=botocore.session.Session(session_vars=_NOTHING_OF_THE_PERSON))
    session = Session(region_name=region)
    # It prefers $AWS_ENDPOINT_URL to its own argument; the stack's own endpoint must win.
    session._service_endpoint_mapping = {service: endpoint_url}  # noqa: SLF001
    return session.client(service, config=_CONFIG)


def create_bucket(s3: Any, name: str, region: str) -> None:
    """Create a bucket. S3 wants the region named, except us-east-1."""
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    s3.create_bucket(Bucket=name, **where)
