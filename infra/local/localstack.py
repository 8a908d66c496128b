"""LocalStack without Docker: the parts of AWS that we use, from wheels in an environment of its own."""

from __future__ import annotations

import os
import uuid
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from shutil import rmtree

from botocore.exceptions import BotoCoreError, ClientError

from infra.local.aws import client, create_bucket
from infra.local.errors import StackError
from infra.local.ports import LOOPBACK
from infra.local.processes import Child, start

DEFAULT_ENVIRONMENT = Path(__file__).parents[2] / ".starlift" / "localstack"
SERVICES = "sqs,s3,events,scheduler,secretsmanager,sts,logs,cloudwatch,sns,iam"
# Its S3 provider keeps the objects of every LocalStack of a machine in one directory below /tmp, whoever came first owning it.
# No setting moves that, so we do, before the first call makes the provider.
_MAIN = """
import runpy, sys
from localstack.services.s3 import provider
provider.DEFAULT_S3_TMP_DIR = sys.argv[1]
runpy.run_module("localstack.runtime.main", run_name="__main__")
"""
_START = timedelta(minutes=10)  # a guard against a hang: 2 s on an idle machine, minutes on a busy one
_STOP = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class LocalStack:
    """A running LocalStack. It forgets everything when it stops."""

    endpoint_url: str
    region: str
    child: Child

    def is_ready(self) -> bool:
        """Whether it does real work. Its log's `Ready.` and its health page say yes even where every call fails."""
        name = f"starlift-readiness-{uuid.uuid4().hex[:12]}"
        try:
            with closing(client("sqs", self.endpoint_url, self.region)) as sqs:
                sqs.delete_queue(QueueUrl=sqs.create_queue(QueueName=name)["QueueUrl"])
            with closing(client("s3", self.endpoint_url, self.region)) as s3:
                create_bucket(s3, name, self.region)
                s3.delete_bucket(Bucket=name)
        except (BotoCoreError, ClientError):
            return False
        return True

    def stop(self) -> None:
        """Ends it, and waits until it is gone."""
        self.child.stop(within=_STOP)


def start_localstack(directory: Path, *, port: int, region: str, environment: Path = DEFAULT_ENVIRONMENT) -> LocalStack:
    """Starts LocalStack on `port` and waits until it is ready; `directory` takes its files and its log.

    `environment` is the virtual environment that holds it. Raises: StackError.
    """
    python = environment / "bin" / "python"
    if not python.exists():
        raise StackError(f"LocalStack is not installed in {environment}; run `make create-environments`")
    objects = directory / "objects"
    rmtree(objects, ignore_errors=True)  # what a killed one left
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)  # rows lie there, whoever made it
    objects.mkdir()
    command = [str(python), "-P", "-c", _MAIN, str(objects)]
    child = start(
        command, log=directory / "localstack.log", environment=_environment(directory, environment, port), directory=directory
    )
    localstack = LocalStack(f"http://{LOOPBACK}:{port}", region, child)
    child.await_ready("LocalStack", localstack.is_ready, within=_START)
    return localstack


def _environment(directory: Path, installed: Path, port: int) -> dict[str, str]:
    """Everything stays on this machine and, but for a cache of AWS's service definitions (4 s to make), in `directory`."""
    address = f"{LOOPBACK}:{port}"
    shared = installed / "files" if os.access(installed, os.W_OK) else directory
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory),
        "SERVICES": SERVICES,
        "GATEWAY_LISTEN": address,
        "LOCALSTACK_HOST": address,
        "SQS_ENDPOINT_STRATEGY": "path",
        "LS_LOG": "warning",  # not a line per call
        "OVERRIDE_IN_DOCKER": "0",  # else, in any container, it writes to /var/lib/localstack
        "FILESYSTEM_ROOT": str(shared),
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DNS_ADDRESS": "0",
    }
