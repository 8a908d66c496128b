"""The part that repeats the catalog: what is in it, how it is replaced, and what is reported as changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.yaml_text import ContractTextError, parsed, read_contract
from services.operator.contract.propose import propose
from services.operator.contract.source_part import (
    differences,
    others_of,
    part_of,
    roots_of,
    source_part,
    with_named_source,
    with_source_part,
)
from services.operator.errors import UsageError
from tests.fixtures.delivered_contract import TEXT as DELIVERED
from tests.unit.services.operator.contract.catalogs import NORTHWIND, PAGILA, catalog, catalog_of, column

STAR = """\
# A comment: kept.
name: shop
star:
  dim_city: {dimension: city, columns: {city_id: , country: country_id.country}}  # this one also
"""


def test_the_tables_to_which_foreign_keys_lead_come_along() -> None:
    part = source_part(PAGILA, ["customer"])
    assert list(part) == ["address", "city", "country", "customer", "staff", "store"]
    assert part["customer"]["foreign_keys"] == {"store_id": "store", "address_id": "address"}
    assert part["city"] == {
        "key": ["city_id"],
        "columns": {
            "city_id": "integer not null",
            "city": "text not null",
            "country_id": "integer not null",
            "last_update": "timestamptz not null",
        },
        "foreign_keys": {"country_id": "country"},
    }


def test_the_tables_that_a_star_names_are_the_roots() -> None:
    star = {
        "a": {"dimension": "city", "joins": {"x": {"table": "country"}, "y": None}},
        "b": {"fact": "city"},
        "c": {"calendar": {}},
        "d": {"fact": ["wrong"]},
        "e": None,
    }
    assert roots_of(star) == ["city", "country"]
    assert roots_of(None) == roots_of([1]) == []


def test_a_star_without_a_source_part_gets_one_and_keeps_its_comments() -> None:
    part = source_part(PAGILA, roots_of(parsed(STAR)[0]["star"]))
    text = with_source_part(STAR, part, "shop.yaml")
    assert text.startswith(STAR)
    assert [one.name for one in read_contract(text, "shop.yaml").source_tables] == ["city", "country"]
    assert with_source_part(text, part, "shop.yaml") == text


def test_a_proposal_is_unchanged_by_a_pull() -> None:
    text = propose(NORTHWIND, "northwind")
    document = parsed(text)[0]
    part = source_part(NORTHWIND, roots_of(document["star"]))
    assert list(differences(document["source"], part)) == []
    assert with_source_part(text, part, "northwind.yaml") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: {}\nname: x\n", "x.yaml:2: 'name' follows `source`; move `source` to the end of the file"),
        ("{name: x, source: {}}", "x.yaml:1: `source` does not begin its line; write it as `source:`, on a line of its own"),
    ],
)
def test_a_source_part_that_can_t_be_replaced_alone_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        with_source_part(text, {}, "x.yaml")
    assert str(refused.value) == message


def test_what_is_not_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(ContractTextError, match=r"x\.yaml:3: it is not YAML"):
        with_source_part("a: b\nc: [", {}, "x.yaml")


def test_each_difference_is_a_line() -> None:
    before = catalog_of("""
gone 1 (id): id integer!
sale 1 (id): id integer!, note text, amount numeric(5,2), state enum('a'), shop integer -> shop
shop 1 (id): id integer!
""")
    after = catalog_of("""
new 1 (id): id integer!
sale 1 (code): id integer!, amount numeric(8,2)!, state enum('a','b'), shop integer, code text!, at timestamptz
shop 1 (id): id integer!
""")
    found = differences({"tables": source_part(before, before.tables)}, source_part(after, after.tables))
    assert list(found) == [
        "+ table new",
        "- table gone",
        "+ sale.code: text not null",
        "+ sale.at: timestamptz",
        "- sale.note",
        "~ sale.amount: numeric(5,2) -> numeric(8,2) not null",
        "~ sale.state: enum('a') -> enum('a', 'b')",
        "~ sale.key: id -> code",
        "- sale.foreign_keys: shop -> shop",
    ]


def test_another_spelling_is_not_a_difference() -> None:
    found = {"tables": {"a": {"key": "id", "columns": {"name": "character varying(9)", "id": "smallint not null"}}}}
    table = catalog_of("a 1 (id): id integer!, name varchar(9)")
    assert list(differences(found, source_part(table, ["a"]))) == []


def test_where_nothing_readable_was_before_everything_is_new() -> None:
    tables = catalog(replace(PAGILA.tables["country"], columns=(column("country_id", "integer not null"),)))
    nothing: tuple[object, ...] = (None, [], {"tables": None}, {"tables": {"country": {"key": 1}}})
    for before in nothing:
        assert list(differences(before, source_part(tables, ["country"]))) == ["+ table country"]


SEVERAL = """\
# A comment: kept.
name: shop
star:
  dim_city: {dimension: city, columns: {city_id: , city: }}
  dim_region: {dimension: region, columns: {region_id: }}
sources:
  regions:
    tables:
      region: {schema: elsewhere, full: true, key: region_id, columns: {region_id: integer not null}}
"""


def test_one_of_several_sources_is_added_and_replaced_and_the_others_stay() -> None:
    document = parsed(SEVERAL)[0]
    elsewhere = others_of(document, "cities")
    assert elsewhere == {"regions": document["sources"]["regions"]}
    assert (part_of(document, "cities"), part_of(document, None)) == (None, None)
    part = source_part(PAGILA, ["city"])
    text = with_source_part(SEVERAL, part, "shop.yaml", "cities")
    assert text.startswith(SEVERAL[: SEVERAL.index("sources:")])
    assert parsed(text)[0]["sources"]["regions"] == document["sources"]["regions"]
    assert list(differences(part_of(parsed(text)[0], "cities"), part)) == []
    assert read_contract(text, "shop.yaml").sources == ("regions", "cities")
    assert with_source_part(text, part, "shop.yaml", "cities") == text
    with pytest.raises(UsageError, match="'carry' follows `sources`; move `sources` to the end of the file"):
        with_source_part(f"{SEVERAL}carry: region\n", part, "shop.yaml", "cities")


def test_a_pull_of_a_database_leaves_the_data_sets_of_other_sources_as_they_are() -> None:
    document = parsed(DELIVERED)[0]
    text = with_source_part(DELIVERED, source_part(PAGILA, ["city"]), "shop.yaml", "cities")
    assert {name: part for name, part in parsed(text)[0]["sources"].items() if name != "cities"} == document["sources"]
    assert with_source_part(text, source_part(PAGILA, ["city"]), "shop.yaml", "cities") == text
    table = "{request: {path: /r}, key: a, columns: {a: integer}}"
    alone = f"name: r\nsource: {{api: {{url: 'https://a.example'}}, tables: {{r: {table}}}}}\n"
    assert parsed(with_named_source(alone, "r.yaml", "rates"))[0]["sources"] == {"rates": parsed(alone)[0]["source"]}


def test_the_only_source_becomes_one_of_several() -> None:
    part = source_part(PAGILA, ["city"])
    alone = with_source_part(STAR, part, "shop.yaml")
    text = with_named_source(alone, "shop.yaml", "shop")
    assert text.startswith(STAR)
    assert parsed(text)[0]["sources"] == {"shop": parsed(alone)[0]["source"]}
    assert read_contract(text, "shop.yaml").part("shop").fingerprint == read_contract(alone, "shop.yaml").fingerprint
