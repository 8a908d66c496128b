"""One star of a database, files and an API, on a real stack: ingestion is killed in the middle of a fetch and of a file."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from infra.local.bootstrap import client
from infra.local.processes import find
from tests.end_to_end.conftest import Databases, Starlift, databases_of, wait_until
from tests.fixtures.help_desk import SECRET_VARIABLE, HelpDesk, Ticket, serving
from tests.fixtures.limits import HANG_S
from tests.fixtures.postgres_cluster import TestCluster

PRODUCTS = 150_000  # more than half of a batch, so that they are written as two objects
SOLD = (1, 7, PRODUCTS)
TICKETS = 11  # in pages of two
HELD_PAGE = 3
CONTRACT = """
name: shop
star:
  dim_date: {calendar: {date_id: date, year: year}}
  dim_product: {dimension: product, columns: {product_id: , product_name: }}
  fact_sale: {fact: sale, columns: {sale_id: , product_id: {references: dim_product}, amount: }}
  fact_ticket:
    fact: ticket
    columns: {id: , product_id: {references: dim_product}, opened: {references: dim_date}, updated_at: }
sources:
  shop:
    tables:
      sale: {key: sale_id, columns: {sale_id: integer not null, product_id: integer not null, amount: "numeric(12,2) not null"}}
  plans:
    tables:
      product: {file: {format: csv}, key: product_id, columns: {product_id: integer not null, product_name: text not null}}
  helpdesk:
    api: {url: "URL", authentication: bearer, secret: helpdesk, requests_per_minute: 6000}
    tables:
      ticket:
        request: {path: /tickets, records: data, paging: {by: next_url, at: links.next}}
        key: id
        columns: {id: integer not null, product_id: integer not null, opened: date not null, updated_at: timestamptz not null}
"""
UP = ("up", "--detach", "--every", "1", "--prove-every", "3600")
NAMED = (
    "SELECT count(*) FROM fact_sale_current JOIN dim_product USING (product_id) WHERE product_name = 'Product ' || product_id"
)


@pytest.fixture
def shop(postgres_cluster: TestCluster) -> Iterator[Databases]:
    """A source with three sales, and an empty warehouse."""
    with databases_of(postgres_cluster, orders=0) as databases:
        databases.write(
            "CREATE TABLE sale (sale_id int PRIMARY KEY, product_id int NOT NULL, amount numeric(12,2) NOT NULL)",
            *(f"INSERT INTO sale VALUES ({number}, {sold}, 9.5)" for number, sold in enumerate(SOLD)),
        )
        yield databases


def test_a_kill_in_the_middle_of_a_fetch_and_of_a_file_loses_and_doubles_nothing(
    starlift: Starlift, shop: Databases, tmp_path: Path
) -> None:
    reached, goes_on, contract = Event(), Event(), tmp_path / "shop.yaml"

    def hold(page: int) -> None:
        if page == HELD_PAGE and not goes_on.is_set():
            reached.set()
            goes_on.wait(HANG_S)

    tickets: list[Ticket] = [
        {"id": number, "product_id": number, "opened": "2026-01-05", "updated_at": f"2026-01-05T09:00:{number:02}Z"}
        for number in range(1, TICKETS + 1)
    ]
    with serving(HelpDesk("token", tickets, before_page=hold)) as desk:
        contract.write_text(CONTRACT.replace("URL", desk.url))
        variables = shop.urls | {"STARLIFT_API_ALLOW": "127.0.0.1", SECRET_VARIABLE: '{"token": "token"}'}
        starlift(*UP, "--contract", str(contract), expected=0, **variables)
        starlift("ingest", "--wait", "--source", "shop")
        unknown = "SELECT product_id, product_name FROM dim_product ORDER BY 1"
        assert shop.read(unknown) == [{"product_id": sold, "product_name": "(unknown)"} for sold in SOLD]
        assert reached.wait(HANG_S)
        kill_in_the_middle_of_a_file(starlift)
        goes_on.set()
        starlift("ingest", "--wait", "--source", "plans")
        starlift("ingest", "--wait", "--source", "helpdesk")
        assert shop.read("SELECT count(*) AS tickets FROM fact_ticket_current") == [{"tickets": TICKETS}]
        assert shop.read(NAMED) == [{"count": len(SOLD)}]
        assert shop.read("SELECT count(*) AS products FROM dim_product WHERE _deleted_at IS NULL") == [{"products": PRODUCTS}]
        assert starlift("verify").out.count("EQUAL as of run") == 3
        (record,) = starlift("files", "--source", "plans", "--json").json["recorded"]
        assert (record["outcome"], record["records"], record["bad"]) == ("taken", PRODUCTS, 0)


def kill_in_the_middle_of_a_file(starlift: Starlift) -> None:
    """Deliver every product, kill ingestion once it has written one object of its run, and wait until its successor runs."""
    resources, killed = starlift.state.resources, starlift.state.processes["ingestion"]
    assert resources is not None
    lines = "\n".join(f"{number},Product {number}" for number in range(1, PRODUCTS + 1))
    with closing(client("s3", resources.endpoint_url, resources.region)) as s3:
        bucket = resources.buckets["landing"]
        s3.put_object(Bucket=bucket, Key="dropzone/product/products.csv", Body=f"product_id,product_name\n{lines}\n".encode())
        wait_until(lambda: s3.list_objects_v2(Bucket=bucket, Prefix="plans/runs/")["KeyCount"] > 0)
        os.kill(killed.pid, signal.SIGKILL)
        wait_until(lambda: find(killed) is None)
        wait_until(lambda: starlift.state.processes.get("ingestion", killed) != killed)
