"""Catalogs as they are met: the shapes of three databases that everyone knows, and random ones."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from contracts.checks import join_alike
from contracts.source_checks import name_problem
from contracts.type_names import column_type
from services.operator.contract.catalog import Catalog, CatalogColumn, CatalogTable, ForeignKey

HOSTILE = (
    "no",
    "on",
    "~",
    "null",
    "12",
    "a: b",
    "#x",
    " x ",
    "größe",
    "it's",
    'say "hi"',
    "a.b",
    "-",
    "x,y",
    "_id",
    "[x]",
    "\t\n",
    "🂡",
    "Ω" * 31,
)
TYPES = (
    *(
        "integer",
        "bigint",
        "text",
        "varchar(3)",
        "uuid",
        "date",
        "timestamp",
        "timestamptz",
        "boolean",
        "numeric(10,2)",
        "numeric",
    ),
    *(
        "double precision",
        "jsonb",
        "bytea",
        "text[]",
        "public.hstore",
        "public.geometry(Point,4326)",
        "enum('a', 'b: c', 'it''s')",
    ),
)


def column(name: str, text: str) -> CatalogColumn:
    """A column as the document spells it: 'integer not null'."""
    kind = text.removesuffix(" not null")
    spelled = re.sub(r"\(.*\)", "", kind)
    return CatalogColumn(name, column_type(kind), text == kind, spelled, is_foreign=kind.startswith("public."))


def table(line: str, *links: ForeignKey) -> CatalogTable:
    """A table in a line: `sale 100 (id): id bigint!, customer_id integer -> customer`; `!` is NOT NULL."""
    head, _, body = line.partition(": ")
    parts = re.fullmatch(r"(\S+) (\d+) \((.*)\)", head.strip())
    assert parts is not None
    columns = [re.fullmatch(r"(\S+) ([^!]+?)(!?)(?: -> (\S+))?", one) for one in body.strip().split(", ")]
    own = tuple(ForeignKey((one[1],), one[4]) for one in columns if one and one[4])
    described = tuple(column(one[1], one[2] + (" not null" if one[3] else "")) for one in columns if one)
    return CatalogTable(parts[1], described, tuple(parts[3].split()), own + links, int(parts[2]))


def catalog(*tables: CatalogTable, schema: str = "public") -> Catalog:
    return Catalog(schema, {one.name: one for one in sorted(tables, key=lambda one: one.name)})


def catalog_of(lines: str) -> Catalog:
    """Tables, a line each; an indented line continues the one before."""
    return catalog(*map(table, lines.strip().replace("\n    ", " ").splitlines()))


PAGILA = catalog_of("""
country 109 (country_id): country_id integer!, country text!, last_update timestamptz!
city 600 (city_id): city_id integer!, city text!, country_id integer! -> country, last_update timestamptz!
address 603 (address_id): address_id integer!, address text!, district text, city_id integer! -> city,
    last_update timestamptz!
language 6 (language_id): language_id integer!, name text!, last_update timestamptz!
actor 200 (actor_id): actor_id integer!, first_name text!, last_name text!, last_update timestamptz!
film 1000 (film_id): film_id integer!, title text!, language_id integer! -> language, original_id integer -> language,
    fulltext tsvector
film_actor 5462 (actor_id film_id): actor_id integer! -> actor, film_id integer! -> film, last_update timestamptz!
staff 2 (staff_id): staff_id integer!, first_name text!, address_id integer! -> address, store_id integer! -> store,
    password text
store 2 (store_id): store_id integer!, manager_staff_id integer! -> staff, address_id integer! -> address,
    last_update timestamptz!
customer 599 (id): id integer!, store_id integer! -> store, first_name text!, address_id integer! -> address,
    create_date date!
inventory 4581 (inventory_id): inventory_id integer!, film_id integer! -> film, store_id integer! -> store,
    last_update timestamptz!
rental 16044 (id): id integer!, rental_date timestamptz!, inventory_id integer! -> inventory,
    customer_id integer! -> customer, last_update timestamptz!
payment 16049 (payment_date payment_id): payment_id integer!, customer_id integer! -> customer,
    rental_id integer! -> rental, amount numeric(5,2)!, payment_date timestamptz!
""")
NORTHWIND = catalog_of("""
categories 8 (category_id): category_id integer!, category_name text!, picture bytea
suppliers 29 (supplier_id): supplier_id integer!, company_name text!, city text, country text
products 77 (product_id): product_id integer!, product_name text!, supplier_id integer -> suppliers,
    category_id integer -> categories, price real
customers 91 (customer_id): customer_id varchar(5)!, company_name text!, city text
employees 9 (employee_id): employee_id integer!, last_name text!, hire_date date, reports_to integer -> employees
shippers 6 (shipper_id): shipper_id integer!, company_name text!
orders 830 (order_id): order_id integer!, customer_id varchar(5) -> customers, employee_id integer -> employees,
    order_date date, ship_via integer -> shippers, freight real, ship_name text
order_details 2155 (order_id product_id): order_id integer! -> orders, product_id integer! -> products,
    unit_price real!, quantity integer!
region 4 (region_id): region_id integer!, region_description text!
territories 53 (territory_id): territory_id text!, territory_description text!, region_id integer! -> region
employee_territories 49 (employee_id territory_id): employee_id integer! -> employees,
    territory_id text! -> territories
""")
CHINOOK = catalog_of("""
Artist 275 (ArtistId): ArtistId integer!, Name text
Album 347 (AlbumId): AlbumId integer!, Title text!, ArtistId integer! -> Artist
Genre 25 (GenreId): GenreId integer!, Name text
Track 3503 (TrackId): TrackId integer!, Name text!, AlbumId integer -> Album, GenreId integer -> Genre,
    Milliseconds integer!
Playlist 18 (PlaylistId): PlaylistId integer!, Name text
PlaylistTrack 8715 (PlaylistId TrackId): PlaylistId integer! -> Playlist, TrackId integer! -> Track
Customer 59 (CustomerId): CustomerId integer!, FirstName text!, City text
Invoice 412 (InvoiceId): InvoiceId integer!, CustomerId integer! -> Customer, InvoiceDate timestamp!, City text,
    Total numeric(10,2)
InvoiceLine 2240 (InvoiceLineId): InvoiceLineId integer!, InvoiceId integer! -> Invoice, TrackId integer! -> Track,
    Quantity integer!
""")


@st.composite
def any_catalog(draw: st.DrawFn) -> Catalog:
    """Up to six tables with names, types, keys and foreign keys of every kind; types of the two sides always agree."""
    names = draw(st.lists(_names.filter(lambda one: name_problem(one) is None), min_size=1, max_size=6, unique=True))
    found: list[CatalogTable] = []
    for name in names:
        columns = draw(st.lists(_names, min_size=1, max_size=6, unique=True))
        types = {one: draw(st.sampled_from(TYPES)) + draw(st.sampled_from(["", " not null"])) for one in columns}
        key = draw(st.lists(st.sampled_from(columns), min_size=1, max_size=2, unique=True))
        types |= {one: draw(st.sampled_from(TYPES[:8])) + " not null" for one in key}
        built = CatalogTable(
            name, tuple(column(*one) for one in types.items()), tuple(key), (), draw(st.sampled_from([0, 5, 10**7]))
        )
        found.append(built)
    return catalog(*(_linked(draw, one, found) for one in found))


def _linked(draw: st.DrawFn, one: CatalogTable, among: list[CatalogTable]) -> CatalogTable:
    links: dict[tuple[str, ...], ForeignKey] = {}
    for target in draw(st.lists(st.sampled_from(among), max_size=4)):
        sides = [
            [
                mine.name
                for mine in one.columns
                if join_alike(mine.type, target.column(name).type) and "," not in mine.name and mine.name == mine.name.strip()
            ]
            for name in target.key
        ]
        if all(sides):
            on = tuple(draw(st.sampled_from(side)) for side in sides)
            if len(set(on)) == len(on):
                links[on] = ForeignKey(on, target.name)
    return CatalogTable(one.name, one.columns, one.key, tuple(links.values()), one.rows)


_names: Any = st.one_of(
    st.sampled_from(HOSTILE),
    st.sampled_from(["id", "user_id", "created_at", "updated_at", "password", "name", "t_date", "dim_date", "city"]),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=15),
)
