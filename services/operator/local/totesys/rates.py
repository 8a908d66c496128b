"""Exchange rates for the simulated wholesaler, served on this machine in the form of the European Central Bank's data API.

The numbers are made up, and depend on currency and day alone. The form is that of `format=csvdata&detail=dataonly`:
https://data.ecb.europa.eu/help/api/data. As there, weekends are missing, and holidays have no value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qsl, urlsplit
from zlib import crc32

from contracts.yaml_text import parsed
from shared.contract_file import contract_text

HEADER = "KEY,FREQ,CURRENCY,CURRENCY_DENOM,EXR_TYPE,EXR_SUFFIX,TIME_PERIOD,OBS_VALUE"
SERIES = "/service/data/EXR/"  # followed by the key of the series, such as D.GBP+USD.EUR.SP00.A
FIRST_DAY = date(1999, 1, 4)  # of the reference rates
_AROUND = {"CHF": 9_400, "GBP": 8_500, "JPY": 1_630_000, "USD": 10_900}  # ten-thousandths for one euro
_HOLIDAYS = {(1, 1), (5, 1), (12, 25), (12, 26)}
_FRIDAY = 4


def rate(currency: str, day: date) -> str:
    """What one euro costs in the currency that day: within 4 % of a usual price, with four decimals; '' on a holiday."""
    if (day.month, day.day) in _HOLIDAYS:
        return ""
    season = abs(day.toordinal() % 600 - 300) * 2 - 300
    noise = crc32(f"{currency} {day}".encode()) % 101 - 50
    units = _AROUND[currency] * (10_000 + season + noise) // 10_000
    return f"{units // 10_000}.{units % 10_000:04}"


def reference_rates(currencies: list[str], first: date, last: date) -> str:
    """The rates of the working days from `first` to `last`, as CSV; '' if there are none."""
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    working_days = [day for day in days if day.weekday() <= _FRIDAY]
    lines = [
        f"EXR.D.{currency}.EUR.SP00.A,D,{currency},EUR,SP00,A,{day},{rate(currency, day)}"
        for currency in sorted(currencies)
        for day in working_days
    ]
    return "\n".join([HEADER, *lines, ""]) if lines else ""


def _today() -> date:
    return datetime.now(UTC).date()


@contextmanager
def serving_rates(port: int = 0, today: Callable[[], date] = _today) -> Iterator[str]:
    """Serve the rates until `today` on 127.0.0.1, on a free port unless one is given; yields the URL of the service.

    Raises: OSError if the port is in use.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = answer(self.path, today())
            tag = f'"{sha256(body.encode()).hexdigest()}"'
            if status is HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
                status, body = HTTPStatus.NOT_MODIFIED, ""
            self.send_response(status)
            self.send_header("Content-Type", "text/csv" if status is HTTPStatus.OK else "text/plain")
            self.send_header("Content-Length", str(len(body.encode())))
            if status is HTTPStatus.OK:
                self.send_header("ETag", tag)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Log nothing: the service that asks does."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/service"
        finally:
            server.shutdown()


def answer(target: str, today: date) -> tuple[HTTPStatus, str]:
    """The status and the body for the path and query of a request."""
    parts = urlsplit(target)
    asked = dict(parse_qsl(parts.query))
    match parts.path.removeprefix(SERIES).split("."):
        case ["D", currencies, "EUR", "SP00", "A"] if parts.path.startswith(SERIES):
            known = sorted(set(currencies.split("+") if currencies else _AROUND) & _AROUND.keys())
        case _:
            return HTTPStatus.NOT_FOUND, "only daily reference rates against the euro are served: D.GBP+USD.EUR.SP00.A\n"
    if asked.get("format") != "csvdata":
        return HTTPStatus.NOT_ACCEPTABLE, "only format=csvdata is served\n"
    try:
        first = max(FIRST_DAY, date.fromisoformat(asked.get("startPeriod", str(FIRST_DAY))))
        last = min(today, date.fromisoformat(asked.get("endPeriod", str(today))))
    except ValueError:
        return HTTPStatus.BAD_REQUEST, "startPeriod and endPeriod are dates such as 2026-01-31\n"
    body = reference_rates(known, first, last)
    return (HTTPStatus.OK, body) if body else (HTTPStatus.NOT_FOUND, "No results found.\n")


def contract_with_rates(url: str) -> str:
    """The text of a contract: the shipped one of totesys, and the rates of the shipped example, asked of this service."""
    totesys, example = (parsed(contract_text(name))[0] for name in ("totesys", "exchange_rates"))
    rates = example["sources"]["rates"] | {"api": {"url": url}}
    star = totesys["star"] | {"fact_exchange_rate": example["star"]["fact_exchange_rate"]}
    return json.dumps({"name": "totesys", "star": star, "sources": {"totesys": totesys["source"], "rates": rates}})
