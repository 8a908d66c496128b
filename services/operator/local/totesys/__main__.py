"""`python -m services.operator.local.totesys fill|write`: the simulated source from the command line."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

from services.operator.local.totesys.fill import ensure_filled
from services.operator.local.totesys.writer import CANCELLING, ERRANDS, write
from shared.errors import DependencyDownError, PermanentError, TransientError

URL_VARIABLE = "TOTESYS_URL"  # rather than the option: every user of the machine can read a command line


async def _fill(arguments: argparse.Namespace) -> str:
    rows = await ensure_filled(arguments.url, orders=arguments.orders, seed=arguments.seed)
    return f"created the eleven tables of totesys and filled {rows:,} rows" if rows else "the database has these tables already"


async def _write(arguments: argparse.Namespace) -> str:
    """Write until the time is over or a signal comes."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.call_later(arguments.seconds, stop.set)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    errands = CANCELLING if arguments.cancel else ERRANDS
    written = await write(arguments.url, rate_per_second=arguments.rate, seed=arguments.seed, stop=stop, errands=errands)
    return (
        f"wrote {written.committed:,} transactions ({written.rolled_back:,} rolled back, {written.uncertain:,} uncertain,"
        f" {written.lost:,} connections lost)"
    )


def main() -> None:
    """Fill or write; a failure is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m services.operator.local.totesys", description=__doc__)
    parser.add_argument("phase", choices=("fill", "write"), help="create and fill the tables, or keep writing to them")
    url = os.environ.get(URL_VARIABLE)
    url_help = f"postgresql://user:password@host:port/database (default: ${URL_VARIABLE})"
    parser.add_argument("--url", required=url is None, default=url, help=url_help)
    parser.add_argument("--seed", type=int, default=1, help="equal seeds give equal data (default: %(default)s)")
    parser.add_argument("--orders", type=int, default=11_187, help="fill: sales orders (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="write: transactions per second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="write: how long (default: %(default)s)")
    parser.add_argument("--cancel", action="store_true", help="write: also delete rows")
    arguments = parser.parse_args()
    try:
        print(asyncio.run((_fill if arguments.phase == "fill" else _write)(arguments)))  # noqa: T201 - for a person
    except (DependencyDownError, PermanentError, TransientError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
