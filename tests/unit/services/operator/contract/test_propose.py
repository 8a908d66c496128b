"""What is proposed holds together, whatever the catalog is, and is what a person would begin with."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from contracts.column_types import BIGINT
from contracts.contract import Contract
from contracts.tables import Fact
from contracts.yaml_text import BYTES_MAXIMUM, parsed, read_contract
from services.operator.contract.catalog import Catalog, CatalogTable, ForeignKey
from services.operator.contract.draft import Draft, TableDraft
from services.operator.contract.propose import propose
from services.operator.contract.roles import facts_among, filter_of_deleted, is_of_migrations, is_secret, words
from services.operator.contract.source_part import source_part
from services.operator.errors import NotFoundError, UsageError
from tests.unit.services.operator.contract.catalogs import (
    CHINOOK,
    NORTHWIND,
    PAGILA,
    any_catalog,
    catalog,
    catalog_of,
    column,
    table,
)


def star(found: Catalog) -> dict[str, Any]:
    """The star that is proposed, as the document holds it."""
    return dict(parsed(propose(found, "proposed"))[0]["star"])


def contract(found: Catalog) -> Contract:
    return read_contract(propose(found, "proposed"), "proposed.yaml")


@given(any_catalog())
@settings(deadline=None)
def test_any_catalog_becomes_a_contract_that_holds_together(found: Catalog) -> None:
    try:
        text = propose(found, "any")
    except NotFoundError:
        return
    assert read_contract(text, "any").remodelled_tables
    assert propose(found, "any") == text


@pytest.mark.parametrize(
    ("found", "facts"),
    [
        (PAGILA, {"film_actor", "rental", "payment"}),
        (NORTHWIND, {"orders", "order_details", "employee_territories"}),
        (CHINOOK, {"Invoice", "InvoiceLine", "PlaylistTrack"}),
    ],
)
@pytest.mark.parametrize("is_counted", [True, False])
def test_events_and_bridges_are_facts_and_things_are_dimensions(found: Catalog, facts: set[str], *, is_counted: bool) -> None:
    """Whether or not the tables were ever analysed."""
    assert facts_among({name: one if is_counted else replace(one, rows=0) for name, one in found.tables.items()}) == facts
    assert {one.source for one in contract(found).facts} == facts


def test_every_table_of_the_catalog_is_in_the_star() -> None:
    for found in (PAGILA, NORTHWIND, CHINOOK):
        assert {one.source for one in contract(found).remodelled_tables} == set(found.tables)


def test_a_dimension_has_the_columns_along_its_foreign_keys_over_several_hops() -> None:
    customer = star(PAGILA)["dim_customer"]["columns"]
    assert customer["city"] == "address_id.city_id.city"
    assert customer["country"] == "address_id.city_id.country_id.country"
    assert star(CHINOOK)["dim_Track"]["columns"]["Artist_Name"] == "AlbumId.ArtistId.Name"


def test_two_roles_of_one_table_and_a_table_s_own_manager_are_looked_up() -> None:
    film = star(PAGILA)["dim_film"]["columns"]
    assert (film["language_name"], film["original_name"]) == ("language_id.name", "original_id.name")
    assert star(NORTHWIND)["dim_employees"]["columns"]["reports_to_last_name"] == "reports_to.last_name"


def test_a_cycle_of_foreign_keys_ends() -> None:
    found = catalog_of("""
a 1 (id): id integer!, name text, b_id integer -> b
b 1 (id): id integer!, name text, c_id integer -> c
c 1 (id): id integer!, name text, a_id integer -> a
""")
    columns = star(found)["dim_a"]["columns"]
    assert {name: path for name, path in columns.items() if path} == {"b_name": "b_id.name", "c_name": "b_id.c_id.name"}


def test_an_order_line_has_its_order_s_dates_and_dimensions() -> None:
    line = star(NORTHWIND)["fact_order_details"]["columns"]
    assert line["order_date"] == {"from": "order_id.order_date", "references": "dim_date"}
    assert line["customer_id"] == {"from": "order_id.customer_id", "references": "dim_customers"}
    assert line["product_id"] == {"references": "dim_products"}


def test_a_fact_refers_to_what_is_one_hop_behind_its_dimension_if_another_fact_does() -> None:
    assert star(PAGILA)["fact_rental"]["columns"]["film_id"] == {"from": "inventory_id.film_id", "references": "dim_film"}


def test_a_timestamp_becomes_a_date_of_the_calendar_and_a_time_and_in_a_key_also_stays() -> None:
    payment = star(PAGILA)["fact_payment"]["columns"]
    assert payment["payment_date"] is None
    assert payment["payment_day"] == {"date_of": "payment_date", "references": "dim_date"}
    assert payment["payment_time"] == {"time_of": "payment_date"}
    assert star(CHINOOK)["fact_Invoice"]["columns"]["Invoice_date"]["date_of"] == "InvoiceDate"


def test_the_last_change_tells_versions_apart_only_where_it_is_never_null() -> None:
    line = "sale 9 (id): id integer!, shop_id integer -> shop, amount integer, updated_at timestamptz"
    shop = "shop 1 (id): id integer!, name text"
    assert "version" not in star(catalog_of(f"{shop}\n{line}"))["fact_sale"]
    assert star(catalog_of(f"{shop}\n{line}!"))["fact_sale"]["version"] == ["updated_date", "updated_time"]


def test_the_creation_stands_for_a_change_that_is_null() -> None:
    sale = "id integer!, shop_id integer -> shop, created_at timestamptz!, updated_at timestamptz"
    found = star(catalog_of(f"shop 1 (id): id integer!, name text\nsale 9 (id): {sale}"))["fact_sale"]
    assert found["version"] == ["updated_date", "updated_time"]
    assert found["columns"]["updated_time"] == {"time_of": "updated_at", "absent": "created_at"}


def test_without_dates_there_is_no_calendar() -> None:
    assert "dim_date" not in star(catalog_of("city 1 (id): id integer!, name text"))


def test_a_name_that_is_taken_gets_a_number() -> None:
    found = catalog_of("""
date 1 (id): id integer!, name text
_date 1 (id): id integer!, _name text, name text
sale 9 (id): id integer!, date_id integer -> date, sold_at timestamptz!
""")
    names = star(found)
    assert list(names) == ["dim_date", "dim_date_2", "dim_date_3", "fact_sale"]
    assert names["dim_date_2"] == {"dimension": "_date", "columns": {"id": None, "name": "_name", "name_2": "name"}}


def test_a_name_that_would_be_too_long_is_cut() -> None:
    found = catalog(CatalogTable("Ω" * 31, (column("id", "integer not null"),), ("id",)))
    assert [one.name for one in contract(found).warehouse_tables] == ["dim_" + "Ω" * 25]


@pytest.mark.parametrize(
    "name", ["password", "PasswordHash", "api_key", "apiKey", "iban", "card_number", "reset_token", "user_pwd"]
)
def test_what_may_be_a_secret_is_left_out_and_said(name: str) -> None:
    assert is_secret(name)
    text = propose(catalog_of(f"staff 1 (id): id integer!, name text, {name} text"), "proposed")
    assert f"# Left out: {name}: the name says that it may hold a secret." in text
    assert name not in parsed(text)[0]["star"]["dim_staff"]["columns"]
    assert name in parsed(text)[0]["source"]["tables"]["staff"]["columns"]


@pytest.mark.parametrize("name", ["shipping", "passenger", "hashtag", "opinion", "product_key_figure", "name"])
def test_an_innocent_name_is_not_a_secret(name: str) -> None:
    assert not is_secret(name)


def test_a_table_whose_key_is_a_secret_and_one_that_cannot_be_read_are_left_out_with_the_reason() -> None:
    view = CatalogTable(
        "v", (column("id", "integer"),), problem="it is a view: no transaction id of its rows shows what changed"
    )
    found = catalog(
        view, table("session 1 (token): token text!, user_id integer -> user"), table("user 1 (id): id integer!, name text")
    )
    text = propose(found, "proposed")
    assert "# Left out: v: it is a view: no transaction id of its rows shows what changed." in text
    assert "# Left out: session: its key holds a column of which the name says that it may hold a secret." in text
    assert list(parsed(text)[0]["star"]) == ["dim_user"]
    with pytest.raises(NotFoundError, match=r"schema 'public' has no table .* \(v: it is a view"):
        propose(catalog(view), "proposed")


def test_a_type_that_the_warehouse_may_lack_travels_as_text_and_documents_stay() -> None:
    columns = "id integer!, tags public.hstore, raw jsonb, shape public.geometry, scan bytea, words tsvector, picked text[]"
    found = star(catalog_of(f"thing 1 (id): {columns}"))["dim_thing"]["columns"]
    assert found == {"id": None, "tags": {"type": "text"}, "picked": None}


def test_a_column_that_may_not_be_read_is_left_out() -> None:
    secretive = CatalogTable(
        "a", (column("id", "integer not null"), replace(column("wage", "integer"), is_readable=False)), ("id",)
    )
    assert "# Left out: wage: the role has no privilege to read it." in propose(catalog(secretive), "proposed")


def test_a_key_of_several_columns_is_looked_up_by_the_table_s_name_and_never_referred_to() -> None:
    place = table("place 9 (country code): country integer!, code text!, name text")
    visit = table(
        "visit 9 (id): id integer!, country integer, code text, at timestamptz!", ForeignKey(("country", "code"), "place")
    )
    person = table(
        "person 9 (id): id integer!, name text, country integer, code text", ForeignKey(("country", "code"), "place")
    )
    found = star(catalog(place, visit, person))
    assert found["fact_visit"]["columns"]["country"] is None
    assert "# No reference to place by (country, code): " in propose(catalog(place, visit, person), "proposed")
    assert found["dim_person"]["columns"]["place_name"] == "place.name"


def test_an_integer_that_refers_to_a_bigint_is_widened_and_a_bigint_that_refers_to_an_integer_refers_to_nothing() -> None:
    found = catalog_of("""
wide 1 (id): id bigint!, name text
narrow 1 (id): id integer!, name text
sale 9 (id): id integer!, wide_id integer! -> wide, narrow_id bigint! -> narrow, amount integer
""")
    (sale,) = (one for one in contract(found).warehouse_tables if isinstance(one, Fact))
    assert (sale.column("wide_id").type, sale.column("wide_id").references) == (BIGINT, "dim_wide")
    assert (sale.column("narrow_id").type, sale.column("narrow_id").references) == (BIGINT, None)


def test_what_contradicts_itself_is_left_out_with_the_reason() -> None:
    part = source_part(NORTHWIND, NORTHWIND.tables)
    draft = Draft("proposed", "public", {}, part, [])
    line, order, region = (
        TableDraft(*one, []) for one in (("dimension", "order_details"), ("fact", "orders"), ("fact", "region"))
    )
    for name in ("order_id", "product_id", "quantity"):
        line.add(name, {"from": name})
    order.add("order_id", {"from": "order_id", "references": "dim_region"})
    order.add("customer_id", {"from": "customer_id", "references": "dim_line"})
    region.add("region_description", {"from": "region_description"})
    draft.tables = {"dim_line": line, "dim_region": region, "fact_order": order}
    draft.settle()
    assert draft.tables == {"dim_line": line, "fact_order": order}
    assert order.columns == {"order_id": None}
    assert dict(order.left_out) == {
        "'fact_order.customer_id' refers to 'dim_line', whose key is not one column": ["customer_id"]
    }
    assert draft.remarks[0].startswith("Left out: dim_region: no column copies 'region_id'")


def test_a_contract_that_no_service_would_read_is_refused_with_what_to_do() -> None:
    vast = column("state", "enum('" + "x" * BYTES_MAXIMUM + "')")
    with pytest.raises(UsageError, match="choose fewer tables with --include or --exclude"):
        propose(catalog(CatalogTable("vast", (column("id", "integer not null"), vast), ("id",))), "proposed")


def test_words_are_found_however_a_name_joins_them() -> None:
    assert [words(name) for name in ("CustomerId", "customer_id", "HTTPStatus", "größeInCm", "line1")] == [
        *("customer id", "customer id", "http status", "größe in cm", "line 1")
    ]


@pytest.mark.parametrize(
    "name", ["_prisma_migrations", "schema_migrations", "django_migrations", "SequelizeMigrations", "alembic_version"]
)
def test_a_table_of_a_tool_for_migrations_is_left_out(name: str) -> None:
    assert is_of_migrations(name)
    assert not is_of_migrations("migration_of_birds")


@pytest.mark.parametrize(
    ("column", "where"),
    [
        ("deleted_at timestamptz", "deleted_at IS NULL"),
        ("DeletedOn date", '"DeletedOn" IS NULL'),
        ("is_deleted boolean!", "NOT is_deleted"),
        ("archived boolean", "COALESCE(NOT archived, true)"),
        ("undeleted_at timestamptz", None),
        ("deleted_by integer", None),
        ("deleted_at timestamptz!", None),
    ],
)
def test_a_column_that_marks_deleted_rows_is_mentioned_as_a_filter_that_can_be_written(column: str, where: str | None) -> None:
    found = catalog(table(f"customer 100 (customer_id): customer_id integer!, name text, {column}"))
    assert filter_of_deleted(found.tables["customer"]) == where
    text = propose(found, "shop")
    if where is None:
        assert "where:" not in text
    else:
        (written,) = re.findall("`(where: .*)`", text)
        read_contract(text.replace("    dimension: customer\n", f"    dimension: customer\n    {written}\n"), "shop")
