"""The server of exchange rates that the simulator runs."""

from __future__ import annotations

import csv
from datetime import date
from http.client import HTTPConnection
from io import StringIO
from urllib.parse import urlencode, urlsplit

import pytest

from contracts.yaml_text import read_contract
from services.operator.local.totesys.rates import HEADER, answer, contract_with_rates, rate, serving_rates
from shared.contract_file import contract_named
from tests.fixtures.totesys import CONTRACT

MONDAY = date(2026, 1, 5)
SERIES = "/service/data/EXR/D.GBP+USD.EUR.SP00.A"


def records(body: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(body)))


def test_rates_come_in_the_columns_of_the_central_bank_without_weekends() -> None:
    status, body = answer(f"{SERIES}?format=csvdata&startPeriod=2026-01-02&detail=dataonly", MONDAY)
    found = records(body)
    assert (status, body.splitlines()[0]) == (200, HEADER)
    assert [(one["CURRENCY"], one["TIME_PERIOD"]) for one in found] == [
        (currency, day) for currency in ("GBP", "USD") for day in ("2026-01-02", "2026-01-05")
    ]
    assert found[0] == {
        "KEY": "EXR.D.GBP.EUR.SP00.A",
        "FREQ": "D",
        "CURRENCY": "GBP",
        "CURRENCY_DENOM": "EUR",
        "EXR_TYPE": "SP00",
        "EXR_SUFFIX": "A",
        "TIME_PERIOD": "2026-01-02",
        "OBS_VALUE": rate("GBP", date(2026, 1, 2)),
    }


def test_a_rate_depends_on_currency_and_day_alone_and_a_holiday_has_none() -> None:
    assert rate("USD", MONDAY) == rate("USD", MONDAY) != rate("USD", date(2026, 1, 6))
    assert 0.8 < float(rate("GBP", MONDAY)) < 0.9
    assert rate("USD", date(2026, 1, 1)) == ""


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"{SERIES}?format=csvdata&startPeriod=2026-01-06", 404),  # after today
        (f"{SERIES}?format=csvdata&startPeriod=soon", 400),
        (f"{SERIES}?format=jsondata", 406),
        ("/service/data/EXR/M.GBP.EUR.SP00.A?format=csvdata", 404),
        ("/service/data/EXR/D.XXX.EUR.SP00.A?format=csvdata", 404),
        ("/elsewhere", 404),
    ],
)
def test_what_is_not_served_is_refused(target: str, status: int) -> None:
    assert answer(target, MONDAY)[0] == status


def test_the_server_says_that_nothing_has_changed() -> None:
    with serving_rates(today=lambda: MONDAY) as url:
        connection = HTTPConnection(str(urlsplit(url).netloc))
        target = f"{urlsplit(url).path}/data/EXR/D..EUR.SP00.A?format=csvdata&startPeriod=2026-01-01"
        connection.request("GET", target)
        first = connection.getresponse()
        assert (first.status, len(records(first.read().decode()))) == (200, 4 * 3)
        connection.request("GET", target, headers={"If-None-Match": str(first.getheader("ETag"))})
        second = connection.getresponse()
        assert (second.status, second.read()) == (304, b"")
        connection.close()


def test_the_shipped_example_asks_the_central_bank_for_what_the_local_server_answers() -> None:
    dataset = contract_named("exchange_rates").source_table("exchange_rate").dataset
    assert dataset is not None
    request = dataset.request
    assert request is not None
    assert request.api.url == "https://data-api.ecb.europa.eu/service"
    query = urlencode(dict(request.parameters) | {str(request.since_parameter): str(request.first_since)})
    status, body = answer(f"/service{request.path}?{query}", MONDAY)
    assert status == 200
    assert set(body.splitlines()[0].split(",")) >= {"CURRENCY", "TIME_PERIOD", "OBS_VALUE"}


def test_the_contract_with_rates_changes_nothing_of_totesys() -> None:
    both = read_contract(contract_with_rates("http://127.0.0.1:1/service"), "contract.yaml")
    assert both.part("totesys").fingerprint == CONTRACT.fingerprint
    assert [table.name for table in both.part("rates").warehouse_tables] == ["dim_date", "fact_exchange_rate"]
