from __future__ import annotations

import pytest

from contracts.document import Column
from contracts.yaml_text import ContractTextError, parsed, read_contract

SHOP = """\
name: shop
star:
  dim_city:
    dimension: city
    columns:
      city_id:
      city_name:
source:
  tables:
    city:
      key: city_id
      columns: {city_id: integer not null, city_name: text}
"""
NOWHERE = "'country' leads nowhere from table 'city': it names neither a foreign key nor a join (foreign keys: none)"


def problems(text: str) -> list[tuple[int, str]]:
    with pytest.raises(ContractTextError) as caught:
        read_contract(text, "shop.yaml")
    return caught.value.problems


def test_names_that_yaml_1_1_takes_for_values_are_names() -> None:
    text = 'no: on\nyes: 2026-11-30\n~: 0x1f\nnumber: 12\nquoted: "true"\nnothing:\ntrue: true\nfloat: 1.5\n'
    assert parsed(text)[0] == {
        "no": "on",
        "yes": "2026-11-30",
        "~": "0x1f",
        "number": 12,
        "quoted": "true",
        "nothing": None,
        "true": True,
        "float": "1.5",
    }


def test_every_problem_is_named_with_its_line() -> None:
    text = SHOP.replace("      city_name:\n", "      name: city_nam\n      size: {from: a, date_of: b}\n").replace(
        "name: shop", "nam: shop"
    )
    assert problems(text) == [
        (1, "nam: there is no such option"),
        (1, "name: it is missing"),
        (
            8,
            f"dim_city.size: it comes from one of {', '.join(Column.ORIGINS)}, not from from and date_of",
        ),
    ]
    again = text.replace("nam: shop", "name: shop").replace("      size: {from: a, date_of: b}\n", "      size: country.size\n")
    assert problems(again) == [
        (7, "dim_city.name: table 'city' has no column 'city_nam'; it has city_id, city_name"),
        (8, f"dim_city.size: {NOWHERE}"),
    ]


def test_a_contradiction_has_the_line_of_its_column() -> None:
    text = SHOP.replace("city_name: text", "city_name: date").replace(
        "      city_name:\n", "      _city: {parsed_date: city_name}\n"
    )
    assert problems(text) == [
        (7, "dim_city._city: 'dim_city._city' begins with '_', as Starlift's own columns do"),
        (7, "dim_city._city: 'dim_city._city' is read from 'city_name', which is not a text"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("a: [1,\nb: 2\n", 3, "it is not YAML: "),
        ("a: 1\na: 2\n", 2, "'a' is given twice"),
        ("a: &x {b: 1}\nc: *x\n", 1, "a contract has no anchors; write it twice"),
        ("a: !!python/object:os.system x\n", 1, "a contract has no tags such as tag:yaml.org,2002:python/object:os.system"),
        ("a: 1\n---\nb: 1\n", 2, "a contract is one document"),
        ("? [a]\n: 1\n", 1, "a key must be a name"),
        ("a: " + "[" * 40 + "]" * 40, 1, "it is nested more than 20 deep"),
        ("a: " + "[" * 100_000, 1, "it is nested more than 20 deep"),
        ("a: \x01", 1, "it is not YAML: "),
        ("x" * (4 * 1024**2 + 1), 1, "it has more than 4 MiB"),
        ("", 1, "it must be a mapping of options"),
    ],
)
def test_what_is_not_a_document_is_refused_in_a_sentence(text: str, line: int, sentence: str) -> None:
    ((found, said),) = problems(text)
    assert (found, said.startswith(sentence)) == (line, True), said
