"""`python -m infra.local.totesys create|fill|write`: the simulated source from the command line, a line for each phase."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from time import perf_counter

import asyncpg

from infra.local.totesys.fill import NotEmptyError, create, fill
from infra.local.totesys.writer import CANCELLING, ERRANDS, connect, write
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.postgres import classed_errors

URL_VARIABLE = "TOTESYS_URL"
RECOVERABLE = (DependencyDownError, NotEmptyError, PermanentError, TransientError)


async def _create(arguments: argparse.Namespace) -> str:
    connection = await connect(arguments.url)
    try:
        await create(connection)
    except (asyncpg.DuplicateObjectError, asyncpg.DuplicateTableError) as error:
        raise PermanentError(f"the database holds something already ({error}); create totesys in an empty database") from error
    finally:
        await connection.close()
    return "created the eleven tables of totesys"


async def _fill(arguments: argparse.Namespace) -> str:
    connection = await connect(arguments.url)
    try:
        with classed_errors("source"):
            rows = await fill(connection, orders=arguments.orders, seed=arguments.seed)
    finally:
        await connection.close()
    return f"filled {sum(rows.values()):,} rows: " + ", ".join(f"{table} {count:,}" for table, count in rows.items())


async def _write(arguments: argparse.Namespace) -> str:
    """A signal ends it early, with the same summary."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.call_later(arguments.seconds, stop.set)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    errands = CANCELLING if arguments.cancel else ERRANDS
    written = await write(arguments.url, rate_per_second=arguments.rate, seed=arguments.seed, until=stop, errands=errands)
    return (
        f"wrote {written.committed:,} transactions ({written.rolled_back:,} rolled back, {written.uncertain:,} uncertain,"
        f" {written.lost:,} connections lost): "
        + ", ".join(f"{table} {count:,}" for table, count in sorted(written.rows.items()))
    )


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.local.totesys", description=__doc__)
    phases = parser.add_subparsers(required=True, metavar="create|fill|write")
    for name, run, text in (
        ("create", _create, "create the tables in an empty database"),
        ("fill", _fill, "fill them with two years of business"),
        ("write", _write, "keep writing as the application does"),
    ):
        phase = phases.add_parser(name, help=text, description=text)
        phase.set_defaults(run=run)
        url = os.environ.get(URL_VARIABLE)  # a command line can be read by every user of the machine
        url_help = f"postgresql://user:password@host:port/database (default: ${URL_VARIABLE})"
        phase.add_argument("--url", required=url is None, default=url, help=url_help)
        if name != "create":
            phase.add_argument("--seed", type=int, default=1, help="equal seeds give equal data (default: %(default)s)")
        if name == "fill":
            phase.add_argument("--orders", type=_count, default=11_187, help="sales orders (default: %(default)s)")
        if name == "write":
            phase.add_argument("--rate", type=_positive, default=20.0, help="transactions per second (default: %(default)s)")
            phase.add_argument("--seconds", type=_positive, default=60.0, help="how long (default: %(default)s)")
            phase.add_argument("--cancel", action="store_true", help="delete rows, too")
    return parser


def main() -> None:
    """Run one phase; a failure is one sentence and status 1."""
    arguments = _parser().parse_args()
    started = perf_counter()
    try:
        line = asyncio.run(arguments.run(arguments))
    except RECOVERABLE as error:
        sys.exit(str(error))
    print(f"{line} ({perf_counter() - started:.1f} s)")


if __name__ == "__main__":
    main()
