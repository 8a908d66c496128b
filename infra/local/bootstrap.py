"""What Terraform makes on AWS, made on LocalStack: queues, buckets and secrets. May be repeated at any time.

    python -m infra.local.bootstrap        (docker-compose.yml; the environment says where: AWS_ENDPOINT_URL, STARLIFT_STACK,
                                            STARLIFT_SOURCE_URL, STARLIFT_WAREHOUSE_URL)

There is no schedule: LocalStack accepts one for EventBridge Scheduler and never fires it, and a rule could not make up the
`traceparent` of an IngestSource. The local stack ticks itself instead (`infra/local/ticker.py`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

import boto3  # type: ignore[import-untyped]  # no stubs
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from localstack_client.session import Session
from pydantic import BaseModel

from contracts.datasets import DROP_ZONE
from contracts.objects import SourceKeys
from infra.local.machine import StackError
from infra.topology import Topology, read_topology

# No proxy: LocalStack is on this machine, or beside us in a network of containers.
_CONFIG = Config(connect_timeout=10, read_timeout=60, retries={"total_max_attempts": 2}, proxies={})
# The person's own AWS stays out: (name in the configuration file, variable, default, conversion).
_NOTHING_OF_THE_PERSON: dict[str, tuple[None, None, str | None, None]] = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


def client(service: str, endpoint_url: str, region: str) -> Any:
    """A boto3 client of LocalStack. The region is always passed: localstack-client would ignore the environment's."""
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


class Resources(BaseModel, frozen=True):
    """What exists, by the names of topology.json: queue URLs, bucket names, secret names.

    `stack` tells this stack's buckets and secrets from another's.
    """

    stack: str
    region: str
    endpoint_url: str
    queue_urls: dict[str, str]
    dead_letter_urls: dict[str, str]
    buckets: dict[str, str]
    secrets: dict[str, str]


def bootstrap(topology: Topology, endpoint_url: str, stack: str, database_urls: Mapping[str, str]) -> Resources:
    """Make what is missing and sets what differs. `database_urls` are by secret: a secret without one is not made.

    Raises: StackError.
    """
    try:
        with (
            closing(client("sqs", endpoint_url, topology.region)) as sqs,
            closing(client("s3", endpoint_url, topology.region)) as s3,
            closing(client("secretsmanager", endpoint_url, topology.region)) as secrets,
        ):
            kept = {"MessageRetentionPeriod": str(topology.dead_letter_retention_s)}
            dead_letter_urls = {queue: _queue_with(sqs, topology.dead_letter_name(queue), kept) for queue in topology.queues}
            made = Resources(
                stack=stack,
                region=topology.region,
                endpoint_url=endpoint_url,
                dead_letter_urls=dead_letter_urls,
                queue_urls={queue: _queue(sqs, topology, queue, url) for queue, url in dead_letter_urls.items()},
                buckets={bucket: _bucket(s3, topology, bucket, stack) for bucket in topology.buckets},
                secrets={
                    secret: _secret(secrets, topology.secret_name(secret, stack), database_urls[secret])
                    for secret in topology.secrets
                    if secret in database_urls
                },
            )
            if topology.drop_zone:
                _announce_files(s3, sqs, topology, made)
            return made
    except (BotoCoreError, ClientError) as error:
        raise StackError(f"LocalStack at {endpoint_url} rejected the set-up: {error}; see its log") from error


def _queue(sqs: Any, topology: Topology, queue: str, dead_letter_url: str) -> str:
    wanted = topology.queues[queue]
    redrive = {"deadLetterTargetArn": _arn(sqs, dead_letter_url), "maxReceiveCount": wanted.max_receive_count}
    attributes = {
        "VisibilityTimeout": str(wanted.visibility_timeout_s),
        "MessageRetentionPeriod": str(wanted.retention_s),
        "RedrivePolicy": json.dumps(redrive),
    }
    return _queue_with(sqs, topology.queue_name(queue), attributes)


def _arn(sqs: Any, queue_url: str) -> str:
    answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    return str(answer["Attributes"]["QueueArn"])


def _queue_with(sqs: Any, name: str, attributes: dict[str, str]) -> str:
    """In two calls: CreateQueue refuses a queue that exists with other attributes."""
    url = str(sqs.create_queue(QueueName=name)["QueueUrl"])
    sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    return url


def _bucket(s3: Any, topology: Topology, bucket: str, stack: str) -> str:
    """Without expiry, since nothing here lives that long, and without versions unless files are delivered."""
    name = topology.bucket_name(bucket, stack)
    try:
        create_bucket(s3, name, topology.region)
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise
    if topology.drop_zone:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def forget_old_states(made: Resources, sources: Iterable[str]) -> None:
    """Delete the earlier versions of the sources' states, which expire on AWS: a run every two seconds makes a GB a day."""
    bucket = made.buckets["landing"]
    with closing(client("s3", made.endpoint_url, made.region)) as s3:
        pages = s3.get_paginator("list_object_versions")
        for page in (page for name in sources for page in pages.paginate(Bucket=bucket, Prefix=SourceKeys(name).state)):
            old = [one for one in page.get("Versions", ()) if not one["IsLatest"]]
            if old:
                named = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in old]
                s3.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True})


def _announce_files(s3: Any, sqs: Any, topology: Topology, made: Resources) -> None:
    """Make S3 announce each file on the queue of the source that has its data set. S3 also sends a test event each time."""
    announced = [
        {
            "Id": dataset,
            "QueueArn": _arn(sqs, made.queue_urls[queue]),
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": f"{DROP_ZONE}{dataset}/"}]}},
        }
        for dataset, queue in topology.drop_zone.items()
    ]
    wanted = {"QueueConfigurations": announced}
    s3.put_bucket_notification_configuration(Bucket=made.buckets["landing"], NotificationConfiguration=wanted)


def _secret(secrets: Any, name: str, text: str) -> str:
    try:
        secrets.create_secret(Name=name, SecretString=text)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceExistsException":
            raise
        secrets.put_secret_value(SecretId=name, SecretString=text)
    return name


def main() -> int:
    """Set up what the environment names, and prints what exists as one JSON document."""
    topology = read_topology()
    names = ("AWS_ENDPOINT_URL", "STARLIFT_STACK", *(f"STARLIFT_{secret.upper()}_URL" for secret in topology.secrets))
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        print(f"the set-up needs environment variables: set {', '.join(missing)}", file=sys.stderr)
        return 2
    urls = {secret: os.environ[f"STARLIFT_{secret.upper()}_URL"] for secret in topology.secrets}
    try:
        resources = bootstrap(topology, os.environ["AWS_ENDPOINT_URL"], os.environ["STARLIFT_STACK"], urls)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    print(resources.model_dump_json(indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
