"""`python -m services.operator.local.totesys fill|write|rates`: the simulated sources from the command line."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

from pydantic import SecretStr

from services.operator.local.totesys.fill import ensure_filled
from services.operator.local.totesys.rates import serving_rates
from services.operator.local.totesys.writer import CANCELLING, ERRANDS, write
from shared.database_url import database_url
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.settings import PREFIX

URL_VARIABLE = "TOTESYS_URL"  # rather than the option: every user of the machine can read a command line


async def _url(arguments: argparse.Namespace) -> str:
    """The URL that was given, or with --configured the one that Starlift's own settings name."""
    if not arguments.configured:
        return str(arguments.url)
    url, secret_id = (os.environ.get(f"{PREFIX}SOURCE_{part}") for part in ("URL", "SECRET"))
    region = os.environ.get(f"{PREFIX}REGION", "")
    found = await database_url("source", url=SecretStr(url) if url else None, secret_id=secret_id, region=region)
    return found.get_secret_value()


async def _fill(arguments: argparse.Namespace) -> str:
    rows = await ensure_filled(await _url(arguments), orders=arguments.orders, seed=arguments.seed)
    return f"created the eleven tables of totesys and filled {rows:,} rows" if rows else "the database has these tables already"


async def _write(arguments: argparse.Namespace) -> str:
    """Write until the time is over or a signal comes."""
    stop = _stop()
    asyncio.get_running_loop().call_later(arguments.seconds, stop.set)
    errands = CANCELLING if arguments.cancel else ERRANDS
    url = await _url(arguments)
    written = await write(url, rate_per_second=arguments.rate, seed=arguments.seed, stop=stop, errands=errands)
    return (
        f"wrote {written.committed:,} transactions ({written.rolled_back:,} rolled back, {written.uncertain:,} uncertain,"
        f" {written.lost:,} connections lost)"
    )


async def _rates(arguments: argparse.Namespace) -> str:
    """Serve exchange rates until a signal comes."""
    stop = _stop()
    try:
        with serving_rates(arguments.port) as url:
            print(f"exchange rates are served at {url}", flush=True)  # noqa: T201 - for a person
            await stop.wait()
    except OSError as error:
        raise PermanentError(f"port {arguments.port} can't be used ({error.strerror}); choose another --port") from error
    return "stopped"


def _stop() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


PHASES = {"fill": _fill, "write": _write, "rates": _rates}


def main() -> None:
    """Fill, write or serve; a failure is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m services.operator.local.totesys", description=__doc__)
    parser.add_argument("phase", choices=PHASES, help="create and fill the tables, keep writing to them, or serve rates")
    url = os.environ.get(URL_VARIABLE)
    url_help = f"postgresql://user:password@host:port/database (default: ${URL_VARIABLE})"
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--url", default=url, help=url_help)
    configured_help = f"use the database of {PREFIX}SOURCE_URL or {PREFIX}SOURCE_SECRET, whose login must own it"
    place.add_argument("--configured", action="store_true", help=configured_help)
    parser.add_argument("--seed", type=int, default=1, help="equal seeds give equal data (default: %(default)s)")
    parser.add_argument("--orders", type=int, default=11_187, help="fill: sales orders (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="write: transactions per second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="write: how long (default: %(default)s)")
    parser.add_argument("--cancel", action="store_true", help="write: also delete rows")
    parser.add_argument("--port", type=int, default=0, help="rates: on 127.0.0.1 (default: a free one)")
    arguments = parser.parse_args()
    if arguments.phase != "rates" and not (arguments.url or arguments.configured):
        parser.error("one of the arguments --url --configured is required")
    try:
        print(asyncio.run(PHASES[arguments.phase](arguments)))  # noqa: T201 - for a person
    except (DependencyDownError, PermanentError, TransientError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
