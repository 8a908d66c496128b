"""LocalStack without Docker: the parts of AWS that we use, from wheels in a virtual environment of its own.

Beside our own packages it would force an older botocore on us. A checkout has that environment in `.starlift/localstack`, where
`make create-environments` puts it; an installed Starlift makes one in the user's cache when it first needs it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import uuid
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from infra.local.bootstrap import client, create_bucket
from infra.local.machine import LOOPBACK, StackError
from infra.local.processes import Child, start

ENVIRONMENT_VARIABLE = "STARLIFT_LOCALSTACK"  # the directory of LocalStack's virtual environment
_OF_CHECKOUT = Path(__file__).parents[2] / ".starlift" / "localstack"
# LocalStack's last release without an account needs Python 3.13; before, the release before it is the last that works.
_LOCK = Path(__file__).parents[1] / "locks" / f"localstack-{'py313' if sys.version_info >= (3, 13) else 'py311'}.txt"
SERVICES = "sqs,s3,events,scheduler,secretsmanager,sts,logs,cloudwatch,sns,iam"
# Its S3 provider keeps the objects of every LocalStack of a machine in one directory below /tmp, owned by its first user.
# No setting moves that, so we do, before the first call makes the provider.
_MAIN = """
import runpy, sys
from localstack.services.s3 import provider
provider.DEFAULT_S3_TMP_DIR = sys.argv[1]
runpy.run_module("localstack.runtime.main", run_name="__main__")
"""
_START = timedelta(minutes=10)  # a guard against a hang: 2 s on an idle machine, minutes on a busy one
_STOP = timedelta(seconds=10)
_ELSEWHERE = f"set {ENVIRONMENT_VARIABLE} to the directory of an environment that contains it"


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
        """End it, and waits until it is gone."""
        self.child.stop(within=_STOP)


def environment_directory() -> Path:
    """Where LocalStack is installed, or will be: one directory in the cache for each lock and each Python."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    if is_installed(_OF_CHECKOUT):
        return _OF_CHECKOUT
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = sha256(_LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    return cache / "starlift" / f"localstack-{key}"


def is_installed(environment: Path) -> bool:
    """Whether a virtual environment is complete: it gets its name when everything is in it."""
    return (environment / "bin" / "python").exists()


def install(environment: Path) -> None:
    """Install the packages of the lock into a new virtual environment; return at once where it exists. Needs the network.

    Raises: StackError.
    """
    try:
        environment.parent.mkdir(parents=True, exist_ok=True)
        with (environment.parent / f"{environment.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second `starlift up` waits for the first
            if not is_installed(environment):
                _install(environment)
    except OSError as error:
        raise StackError(f"LocalStack cannot be installed in {environment}: {error.strerror}; {_ELSEWHERE}") from error


def _install(environment: Path) -> None:
    unfinished = environment.with_name(f"{environment.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    python, lock, uv = str(unfinished / "bin" / "python"), str(_LOCK), shutil.which("uv")
    if uv is not None:
        create = [uv, "venv", "--quiet", "--python", sys.executable, str(unfinished)]
        fill = [uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock]
    else:
        create = [sys.executable, "-m", "venv", str(unfinished)]
        fill = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--require-hashes", "-r", lock]
    for command in (create, fill):
        done = subprocess.run(  # noqa: S603 - our own arguments
            command, capture_output=True, text=True, check=False, env={**os.environ, "PIP_USER": "0"}
        )
        if done.returncode != 0:
            reason = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
            shutil.rmtree(unfinished, ignore_errors=True)
            raise StackError(
                f"LocalStack cannot be installed in {environment}: {reason[-300:]}; its packages are downloaded once: "
                f"check the network, or {_ELSEWHERE}"
            )
    unfinished.replace(environment)


def start_localstack(directory: Path, *, port: int, region: str) -> LocalStack:
    """Start LocalStack on `port` and wait until it is ready; `directory` takes its files and its log.

    Installs it first where that is necessary. Raises: StackError.
    """
    environment = environment_directory()
    install(environment)
    python = environment / "bin" / "python"
    objects = directory / "objects"
    shutil.rmtree(objects, ignore_errors=True)  # what a killed one left
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)  # it holds rows, whichever process created it
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
        "LS_LOG": os.environ.get("LS_LOG", "warning"),  # info: a line per call
        "OVERRIDE_IN_DOCKER": "0",  # else, in any container, it writes to /var/lib/localstack
        "FILESYSTEM_ROOT": str(shared),
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DNS_ADDRESS": "0",
    }
