"""The local stack as a person starts and stops it: in the foreground with a line per event, or detached."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from contracts.contract import Contract
from contracts.tables import ContractError
from contracts.yaml_text import ContractTextError
from infra.local import processes
from infra.local.localstack import environment_directory, is_installed
from infra.local.machine import StackError, disk_errors, full_disk, has_any_room
from infra.local.stack import Stack
from infra.local.state import OPERATOR, Home, default_home, forget_other_clients, service_environment
from infra.topology import sources_of
from services.operator.contract.plan import make_plan, plan_of_mistakes, require_possible
from services.operator.contract.urls import main_source, up_variable, urls_of_others
from services.operator.errors import UsageError
from services.operator.local.events import LogTail, read_event, sentence
from services.operator.local.inspection import LocalStack, write_password_file
from services.operator.local.prover import Prover
from services.operator.local.totesys.fill import ensure_filled
from services.operator.local.totesys.start import start_writing
from services.operator.locate import chosen_settings
from services.operator.system import SERVICES
from services.operator.wording import COMPLAINT
from shared.contract_file import contract_named
from shared.settings import DEFAULT_SOURCE, PREFIX, source_variable

LOOK_EVERY = timedelta(milliseconds=200)
SERVICES_LIMIT = timedelta(minutes=10)  # a guard against a hang, like the limits of the stack's other parts
DETACHED_LIMIT = timedelta(minutes=45)  # all of them together
ORDERS = 11_187  # two years of the real wholesaler
WRITES_PER_SECOND = 5.0
FOR_EVER = timedelta(days=3650)
_USAGE = 2  # the exit code of a `starlift up` that refused its options or settings


class Screen(Protocol):
    """Where a command that takes a while reports what it does: a terminal, or what a test reads."""

    def say(self, line: str) -> None:
        """Print one line that stays."""

    def doing(self, what: str) -> AbstractContextManager[Callable[[str], None]]:
        """Show what the block does while it does it; the function that it gets replaces the text."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The options of `starlift up`. Without URLs the databases are embedded, and the simulator writes to the source.

    `every` is the time between two runs, `prove_every` between two proofs.
    """

    source_url: SecretStr | None
    warehouse_url: SecretStr | None
    every: timedelta
    localstack_port: int | None = None
    prove_every: timedelta = timedelta(minutes=1)

    def require_agreement(self, contract: Contract) -> None:
        """Raises: UsageError for a warehouse that the simulator's rows would be loaded into."""
        has_database = not contract.is_delivered(main_source(contract))
        if has_database and self.warehouse_url is not None and self.source_url is None:
            raise UsageError(
                "--warehouse-url without --source-url would fill your warehouse with simulated rows; pass both, or neither"
            )

    def arguments(self) -> list[str]:
        """The command line of a process with these options, without the URLs: other users can read a command line."""
        port = [] if self.localstack_port is None else ["--localstack-port", str(self.localstack_port)]
        spans = {"--every": self.every, "--prove-every": self.prove_every}
        return ["up", *(text for name, span in spans.items() for text in (name, str(span.total_seconds()))), *port]

    def environment(self) -> dict[str, str]:
        """The URLs, as `starlift up` reads them from its environment."""
        urls = {up_variable("source"): self.source_url, up_variable("warehouse"): self.warehouse_url}
        return {name: url.get_secret_value() for name, url in urls.items() if url is not None}


def up_in_foreground(options: UpOptions, screen: Screen) -> None:
    """Start everything, report events until SIGINT or SIGTERM, stop everything.

    Raises: UsageError, PermanentError, DependencyDownError, TransientError.
    """
    home, contract = default_home(), load_contract_of_environment()
    options.require_agreement(contract)
    if contract.sources:
        os.environ[f"{PREFIX}SOURCE_NAME"] = main_source(contract)  # which everyone who works on the stack must know
    with Stack(home, settings=chosen_settings()) as stack, disk_errors(home):
        start(stack, options, screen, orders=ORDERS)
        tails = start_services(stack, home)
        owner_url = stack.source_owner_url
        if owner_url is not None:
            seed = int(time.time())  # other changes than last time
            log = home / "application.log"
            writer = start_writing(owner_url, per_second=WRITES_PER_SECOND, lasting=FOR_EVER, seed=seed, log=log)
            stack.adopt("application", writer)
        write_password_file(stack, home)
        screen.say(f"up; a run every {options.every.total_seconds():g} s. Ctrl-C or `starlift down` ends it.")
        for line in LocalStack(home).addresses(contract):
            screen.say(line)
        prover = Prover(
            options.prove_every,
            home / "proof.log",
            lambda: chosen_settings() | service_environment(OPERATOR, stack.state, os.environ),
            lambda child: stack.adopt("proof", child),
        )
        report_until_stopped(stack, tails, options.every, screen.say, prover.look)


def start(stack: Stack, options: UpOptions, screen: Screen, *, orders: int) -> None:
    """Start LocalStack and the databases, and fill an embedded source."""
    forget_other_clients()
    contract = load_contract_of_environment()
    sources = sources_of(contract, main_source(contract) or DEFAULT_SOURCE)
    others = asyncio.run(urls_of_others(contract))
    if lacking := [source_variable("source_url", name) for name, url in others.items() if url is None]:
        raise UsageError(f"no URL configured for some of the contract's sources: set {', '.join(lacking)}")
    require_possible(asyncio.run(make_plan(contract, options.source_url, options.warehouse_url, others)))
    if not is_installed(environment_directory()):
        screen.say(f"installing LocalStack in {environment_directory()}, once; this takes a minute or two")
    with screen.doing("starting LocalStack and PostgreSQL"):
        given = (options.source_url, options.warehouse_url)
        source, warehouse = (None if url is None else url.get_secret_value() for url in given)
        stack.start(
            source_url=source,
            warehouse_url=warehouse,
            sources=sources,
            other_urls={name: url.get_secret_value() for name, url in others.items() if url is not None},
            localstack_port=options.localstack_port,
        )
    if options.warehouse_url is None:  # the embedded one may hold a star that can't follow the contract
        require_possible(asyncio.run(make_plan(contract, None, SecretStr(stack.database_url("warehouse")), others)))
    if stack.source_owner_url is not None:
        with screen.doing("filling the source"):
            rows = asyncio.run(ensure_filled(stack.source_owner_url, orders=orders))
        screen.say(f"source: {rows:,} rows made" if rows else "source: keeps its data")


def start_services(stack: Stack, home: Path) -> list[LogTail]:
    """Start the three services and wait until each listens; return their logs from here on. Raises: StackError."""
    tails, silent = ([LogTail(home / f"{service}.log") for service in SERVICES] for _ in range(2))
    stack.start_services()
    deadline = time.monotonic() + SERVICES_LIMIT.total_seconds()
    while silent:
        if time.monotonic() > deadline:
            raise StackError(f"{', '.join(tail.path.stem for tail in silent)} did not start; the log is {silent[0].path}")
        stack.tend()
        silent = [tail for tail in silent if not any(read_event(line).get("event") == "started" for line in tail.new_lines())]
        time.sleep(LOOK_EVERY.total_seconds())
    return tails


def report_until_stopped(
    stack: Stack,
    tails: list[LogTail],
    every: timedelta,
    say: Callable[[str], None],
    look_at_proof: Callable[[], str | None],
) -> None:
    """Ask for runs and proofs, restart what dies, print what the services log; ends by KeyboardInterrupt only."""
    tickers = stack.tickers(every)
    try:
        while True:
            for event in stack.tend():
                say(event)
            try:
                for ticker in tickers:
                    ticker.tick()
            except (BotoCoreError, ClientError) as error:  # what has died is started again at the next look
                say(f"could not ask for a run: {error}")
            proved = look_at_proof()
            for line in (*new_sentences(tails), *([proved] if proved else [])):
                say(line)
            time.sleep(LOOK_EVERY.total_seconds())
    except KeyboardInterrupt:
        say("stopping")


def new_sentences(tails: list[LogTail]) -> Iterator[str]:
    """What is new in the logs and concerns a person who watches."""
    for tail in tails:
        for line in tail.new_lines():
            if (text := sentence(line)) is not None:
                yield text


def up_detached(options: UpOptions, screen: Screen) -> None:
    """Start `starlift up` as a process of its own and wait until it is up.

    Raises: UsageError; StackError with the last line that it printed.
    """
    home, contract = default_home(), load_contract_of_environment()
    options.require_agreement(contract)
    Home(home).require_free()
    log = home / "up.log"
    with disk_errors(home), log.open("wb") as output:
        log.chmod(0o600)
        child = subprocess.Popen(  # noqa: S603 (ourselves)
            processes.python("services.operator", *options.arguments()),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **options.environment()},
            start_new_session=True,
        )
    try:
        with screen.doing("starting"):
            _wait_until_up(child, log)
    except BaseException:
        child.terminate()
        raise
    screen.say(f"up in {home}; `starlift status` shows its state, `starlift down` stops it; events are in {log}")
    screen.say(f"From another directory: export STARLIFT_HOME={shlex.quote(str(home))}")
    for line in LocalStack(home).addresses(contract):
        screen.say(line)


def _wait_until_up(child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DETACHED_LIMIT.total_seconds()
    while time.monotonic() < deadline:
        if (code := child.poll()) is not None:
            words = log.read_text(errors="replace")
            if COMPLAINT not in words and not has_any_room(log.parent):
                raise full_disk(log.parent)
            raise (UsageError if code == _USAGE else StackError)(last_words(words))
        found = Stack.found()
        if found is not None and found.owner.pid == child.pid and set(SERVICES) <= set(found.processes):
            return
        time.sleep(LOOK_EVERY.total_seconds())
    raise StackError(f"the stack was not up after {DETACHED_LIMIT.total_seconds():g} s; see {log}")


def last_words(log: str) -> str:
    """Why a command ended: its one sentence on stderr, which may have several lines, else its last line."""
    complaint = re.search(rf"^{COMPLAINT}(.+)", log, re.MULTILINE | re.DOTALL)
    return complaint[1].strip() if complaint else (log.strip().splitlines() or ["it ended without a message"])[-1]


def load_contract_of_environment() -> Contract:
    """The contract that STARLIFT_CONTRACT names, or the shipped one. Raises: UsageError, with every problem of a document."""
    name = os.environ.get(f"{PREFIX}CONTRACT") or "totesys"
    if name.startswith("s3://"):
        raise UsageError(f"a local stack has no AWS credentials to read '{name}'; download it, and name the file as --contract")
    try:
        return contract_named(name)
    except ContractTextError as error:
        require_possible(plan_of_mistakes(name, error))
        raise
    except ContractError as error:
        raise UsageError(f"STARLIFT_CONTRACT is wrong: {error}") from error
