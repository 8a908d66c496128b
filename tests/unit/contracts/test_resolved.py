"""What a document leaves out, and what its paths mean."""

from __future__ import annotations

import pytest

from contracts.column_types import BIGINT, DATE, INTEGER, JSONB, TEXT, UUID, Kind, numeric, varchar
from contracts.contract import Contract
from contracts.origins import DateOf, FromLookup, FromSource
from contracts.tables import Drift, Lookup
from contracts.yaml_text import ContractTextError, read_contract
from tests.unit.contracts.documents import SOURCE, contract, problem, table


def test_a_column_that_says_nothing_is_a_copy() -> None:
    found = table("customer_id:; full_name:; state:; extra:; limit:; other: full_name; dotted: '\"odd.name\"'")
    assert found.key == ("customer_id",)
    assert found.columns[0].type == INTEGER
    assert [(column.name, column.origin, column.nullable) for column in found.columns[1:]] == [
        ("full_name", FromSource("full_name"), False),
        ("state", FromSource("state"), False),
        ("extra", FromSource("extra"), True),  # jsonb: an inferred member has none
        ("limit", FromSource("limit"), True),
        ("other", FromSource("full_name"), False),
        ("dotted", FromSource("odd.name"), True),
    ]
    assert [column.type for column in found.columns[1:4]] == [TEXT, TEXT, JSONB]


def test_only_what_the_star_needs_is_read_and_carrying_reads_all() -> None:
    star = "  t:\n    dimension: customer\n    columns:\n      customer_id:\n      land: country.country_name\n"
    read = contract(star)
    assert {one.name: [column.name for column in one.columns] for one in read.source_tables} == {
        "country": ["code", "country_name"],
        "customer": ["customer_id", "country"],
    }
    assert "password" in read.source_table("customer").others
    carried = contract(star, "carry: customer\n").source_table("customer")
    assert (carried.drift, carried.others, len(carried.columns)) == (Drift.CARRY, (), 10)


def test_a_path_follows_foreign_keys_by_column_by_table_and_by_joins() -> None:
    joins = "    joins: {home: {table: city, on: [country, city_number]}}\n"
    found = table("customer_id:; bill: billing.country_name; city: home.city_name; land: home.country.country_name", more=joins)
    assert found.lookups == (
        Lookup("country", ("billing",), "billing"),
        Lookup("city", ("country", "city_number"), "home"),
        Lookup("country", ("country",), "home.country", via="home"),
    )
    assert [(column.origin, column.nullable) for column in found.columns[1:]] == [
        (FromLookup("billing", "country_name"), False),
        (FromLookup("home", "city_name"), True),  # `country` may be NULL
        (FromLookup("home.country", "country_name"), True),
    ]
    by_table = table("customer_id:; city: city.city_name; text: {from: city.city_name, absent: none}")
    assert by_table.lookups == (Lookup("city", ("country", "city_number"), "country,city_number"),)
    assert [column.nullable for column in by_table.columns] == [False, True, False]


def test_a_line_takes_the_date_of_its_header() -> None:
    columns = "sale_id:; position:; day: {date_of: sale_id.paid_at, absent: entered_at}; who: sale_id.customer"
    found = table(columns, "fact: line")
    assert found.key == ("sale_id", "position")
    assert found.column("day").origin == DateOf("paid_at", "entered_at", "sale_id")
    assert (found.column("day").type, found.column("day").nullable) == (DATE, False)
    assert found.column("sale_id").type == BIGINT
    assert table("sale_id:; sold: {date_of: sold_at}", "fact: sale").column("sold").nullable


def test_a_type_of_one_s_own_is_that_of_the_star_or_the_form_in_which_values_travel() -> None:
    star = "  t:\n    dimension: customer\n    columns:\n      customer_id:\n      full_name: {type: varchar(80)}\n"
    found = contract(f"{star}      limit: {{type: 'numeric(12,2)', nullable: false}}\n")
    assert found.warehouse_table("t").column("full_name").type == varchar(80)
    assert found.source_table("customer").column("full_name").type == TEXT
    assert found.source_table("customer").column("limit").type == numeric(12, 2)
    assert not found.warehouse_table("t").column("limit").nullable
    twice = "      limit: {type: 'numeric(12,2)'}\n      again: {from: limit, type: 'numeric(12,3)'}\n"
    with pytest.raises(ContractTextError, match=r"can't be read both as numeric\(12,2\) and as numeric\(12,3\)"):
        contract(star + twice)


def test_the_calendar_is_its_parts() -> None:
    calendar = contract("  days:\n    calendar: {day: date, year: year, name: day_name}\n").calendar
    assert calendar is not None
    assert calendar.key == ("day",)
    assert [column.type.kind for column in calendar.columns] == [Kind.DATE, Kind.INTEGER, Kind.TEXT]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ("customer_id:; name: nam", "t.name: table 'customer' has no column 'nam'; it has "),
        ("customer_id:; name: country", "t.name: "),
        ("name: full_name", "t: no column copies 'customer_id', which is in the key of 'customer'"),
        ("customer_id:; x: a..b", "t.x: 'a..b' is not a path: names, joined by dots"),
        ("customer_id:; x: nowhere.b", "t.x: 'nowhere' leads nowhere from table 'customer'"),
        ("customer_id:; x: city.anthem", "t.x: table 'city' has no column 'anthem'"),
        ("customer_id:; x: {parsed_date: full_name, absent: x}", "t.x: `absent` does not go with `parsed_date`"),
    ],
)
def test_a_path_that_leads_nowhere_is_a_problem(columns: str, text: str) -> None:
    if columns.endswith("name: country"):
        assert table(columns).column("name").origin == FromSource("country")
    else:
        assert text in problem(columns)


def test_a_table_by_whose_name_several_foreign_keys_lead_is_named_by_column() -> None:
    said = problem("sale_id:; x: customer.country.anthem.y", "fact: sale")
    assert "'anthem' leads nowhere from table 'country'" in said
    columns = "      columns: {sale_id: bigint not null, from: varchar(2), to: varchar(2)}\n"
    lands = f"{columns}      foreign_keys: {{from: country, to: country}}\n"
    source = SOURCE.replace("    line:\n", f"    trip:\n      key: sale_id\n{lands}    line:\n")
    with pytest.raises(ContractTextError, match="several foreign keys lead there; name the column"):
        read_contract(f"name: shop\nstar: {{t: {{dimension: trip, columns: {{sale_id: , x: country.anthem}}}}}}\n{source}", "x")
    assert "the source has no table 'shop'; its tables are city, country" in problem("x:", "dimension: shop")


def test_two_ways_of_one_name_are_refused() -> None:
    """Otherwise `home` and `other` would be read from one of the two rows."""
    joins = "    joins: {home: {table: country, on: country}, billing: {table: country, on: code, via: home}}\n"
    found = problem("customer_id:; home: billing.country_name; other: home.billing.country_name", more=joins)
    assert found == "t.other: 'billing' leads to 'country', but another step is also called 'billing'; rename the join"
    joins = joins.replace("billing", "self")
    assert len(table("customer_id:; home: billing.country_name; other: home.self.country_name", more=joins).lookups) == 3


LOG = """
source:
  tables:
    log: {row_id: row, columns: {at: timestamptz, text: text}}
    totals: {full: true, key: day, columns: {day: date, total: numeric}}
"""


def read(star: str, source: str = LOG) -> Contract:
    return read_contract(f"name: log\nstar:\n{star}{source}", "log.yaml")


def test_rows_without_a_key_are_told_apart_by_a_column_that_is_computed() -> None:
    found = read(
        "  fact_log: {fact: log, columns: {row: , text: }}\n  dim_day: {dimension: totals, columns: {day: , total: }}\n"
    )
    log, totals = found.source_table("log"), found.source_table("totals")
    assert (log.key, log.full, log.row_id, log.others) == (("row",), True, "row", ("at",))
    assert [(column.name, column.type) for column in log.columns] == [("row", UUID), ("text", TEXT)]
    assert [column.name for column in log.stored_columns] == ["text"]
    assert found.warehouse_table("fact_log").key == ("row",)
    assert (totals.key, totals.full, totals.row_id) == (("day",), True, None)


@pytest.mark.parametrize(
    ("star", "source", "reason"),
    [
        ("fact_log: {fact: log, columns: {text: }}", LOG, "no column copies 'row', which is in the key of 'log'"),
        (
            "log: {dimension: log, columns: {row: }}",
            LOG,
            "'log' is made of 'log', which has no key: make it a fact without version",
        ),
        (
            "log: {fact: log, version: text, columns: {row: , text: {nullable: false}}}",
            LOG,
            "has no key: make it a fact without",
        ),
        (
            "day: {dimension: totals, columns: {day: , text: l.text}, joins: {l: {table: log, on: day}}}",
            LOG,
            "'log' is joined, but has no key to join it by; declare its key, with `full: true`, instead of `row_id: row`",
        ),
        ("log: {fact: log, columns: {row: }}\ncarry: log", LOG, "'log' can't be carried, since it has no key; declare its key"),
        (
            "log: {fact: log, columns: {row: }}",
            LOG.replace("{row_id: row", "{row_id: at"),
            "the table has a column 'at'; give the row id",
        ),
        ("log: {fact: log, columns: {row: }}", LOG.replace("{row_id: row", "{row_id: row, key: at"), "exclude each other"),
        (
            "log: {fact: log, columns: {row: }}",
            LOG.replace("row_id: row, ", ""),
            "`key` is missing; if its rows have none, write",
        ),
    ],
)
def test_rows_without_a_key_can_be_nothing_but_a_fact_without_version(star: str, source: str, reason: str) -> None:
    with pytest.raises(ContractTextError) as caught:
        read(f"  {star}\n", source)
    assert reason in str(caught.value)


def test_a_second_copy_of_a_key_may_be_null_where_an_inferred_member_has_no_value_for_it() -> None:
    source = "source: {tables: {t: {key: id, columns: {id: uuid not null}}, u: {key: id, columns: {id: uuid not null}}}}"
    found = read(
        "  dim_t: {dimension: t, columns: {id: , again: id}}\n  fact_u: {fact: u, columns: {id: {references: dim_t}}}\n", source
    )
    assert [(column.name, column.nullable) for column in found.warehouse_table("dim_t").columns] == [
        ("id", False),
        ("again", True),
    ]


SOURCES = """
sources:
  shop:
    tables:
      item: {key: item_id, columns: {item_id: integer not null, item_name: text not null}}
  plans:
    tables:
      budget:
        schema: finance
        key: budget_id
        columns: {budget_id: integer not null, item_id: integer, amount: "numeric(12,2) not null"}
        foreign_keys: {item_id: item}
"""
STAR = """
star:
  dim_item: {dimension: item, columns: {item_id: , item_name: }}
  fact_budget:
    fact: budget
    columns: {budget_id: , item_id: {references: dim_item}, amount: }
"""


def test_a_star_table_belongs_to_the_source_that_has_its_table() -> None:
    found = read_contract(f"name: several\n{STAR}{SOURCES}", "several.yaml")
    assert found.sources == ("shop", "plans")
    assert [table.name for table in found.part("plans").warehouse_tables] == ["fact_budget"]
    alone = f"name: several\nstar:\n{STAR.partition('fact_budget')[0].partition('star:')[2]}\n"
    source = "source:\n  tables:\n    item: {key: item_id, columns: {item_id: integer not null, item_name: text not null}}\n"
    assert found.part("shop").fingerprint == read_contract(alone.rstrip() + "\n" + source, "alone.yaml").fingerprint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            STAR.replace("amount: }", "amount: , item_name: item_id.item_name}") + SOURCES,
            "fact_budget: 'fact_budget' joins 'budget' of source 'plans' with 'item' of source 'shop', which have no common",
        ),
        (STAR + SOURCES + SOURCE, "a contract has either `source` or `sources`"),
        (STAR, "a contract has either `source` or `sources`"),
        (
            STAR + SOURCES.replace("budget:", "item:", 1),
            "two sources have a table 'item'; give one of them another name here, and its real one as `table`",
        ),
        (
            STAR + SOURCES + "  rates:\n    tables:\n      rate: {key: day, columns: {day: date not null}}\n",
            "sources.rates: the star needs no table of this source; remove it",
        ),
        (STAR + SOURCES.replace("plans:", "Plans 2:"), "sources.Plans 2"),
    ],
)
def test_sources_that_contradict_each_other_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ContractTextError) as refusal:
        read_contract(f"name: several\n{text}", "several.yaml")
    assert problem in str(refusal.value)
