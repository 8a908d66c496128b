"""Data sets in a contract's document: what they mean, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from textwrap import indent
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given

from contracts.datasets import Api, Authentication, Contents, Dataset, Format, Pages, Paging, RecordForm, Request
from contracts.document import Document
from contracts.tables import ContractError
from contracts.yaml_text import ContractTextError, parsed, read_contract
from services.operator.contract.text import source_text, star_table_lines
from tests.fixtures.delivered_contract import BUDGET, DELIVERED, EXCHANGE_RATE, PLANS, PRODUCT, RATES, TEXT
from tests.fixtures.properties import examples
from tests.fixtures.random_datasets import sources, star_of

SCHEMA = jsonschema.Draft202012Validator(Document.model_json_schema())


def one(
    entry: str,
    *,
    api: str = "",
    columns: str = "{thing_id: integer not null, changed: timestamptz not null, name: text}",
    star: str = "{fact: thing, columns: {thing_id: , changed: , name: }}",
    name: str = "thing",
    more: str = "",
) -> Dataset:
    """The data set of a contract that has one."""
    table = f"{entry}\nkey: thing_id\ncolumns: {columns}\n"
    text = (
        f"name: one\nstar:\n  t: {star}\nsource:\n{indent(api, '  ')}\n  tables:\n    {name}:\n{indent(table, ' ' * 6)}{more}"
    )
    dataset = read_contract(text, "one.yaml").source_tables[0].dataset
    assert dataset is not None
    return dataset


def asked(request: str, api: str = "api: {url: https://api.example}") -> Request:
    request_ = one(f"request: {request}", api=api).request
    assert request_ is not None
    return request_


def test_a_file_says_its_form_and_contents() -> None:
    assert BUDGET.dataset == Dataset(RecordForm(Format.CSV, delimiter=";"))
    assert PRODUCT.dataset == Dataset(RecordForm(Format.JSON_LINES), Contents.INCREMENT, "updated_at")
    assert one('file: {format: csv, delimiter: "\\t", null_text: NA, encoding: latin1}').form == RecordForm(
        Format.CSV, "\t", "NA", "iso8859-1"
    )
    assert one("file: {format: json, records: data.rows}").form == RecordForm(Format.JSON, path="data.rows")
    assert one("file: {format: parquet}") == Dataset(RecordForm(Format.PARQUET))
    assert one("file: {format: csv, null_text: 0}").form.null == "0"


def test_a_request_says_what_an_api_is_asked() -> None:
    api = Api("https://rates.example/v1", Authentication.BEARER, "rates", requests_per_minute=30)
    pages = Pages(Paging.CURSOR, "cursor", "next.cursor")
    request = Request(api, "/rates", parameters={"base": "EUR"}, pages=pages)
    request = replace(request, since_parameter="since", since_column="day", first_since="2026-01-01")
    assert EXCHANGE_RATE.dataset == Dataset(RecordForm(Format.JSON, path="data.rates"), Contents.INCREMENT, None, request)
    assert asked("{path: /a, paging: {by: link}}").pages == Pages(Paging.LINK)
    assert asked("{path: /a, paging: {by: page, parameter: page, first: 0}}").pages == Pages(Paging.PAGE, "page", first=0)
    offset = asked("{path: /a, method: POST, paging: {by: offset, parameter: from, size: 50, size_parameter: limit}}")
    assert (offset.method, offset.pages) == ("POST", Pages(Paging.OFFSET, "from", size=50, size_parameter="limit"))
    cursor = asked("{path: /a, contents: increment, since: {parameter: after, at: meta.last}}")
    assert (cursor.since_parameter, cursor.since_column, cursor.cursor_at) == ("after", None, "meta.last")


def test_columns_that_its_options_name_are_read_though_the_star_needs_them_not() -> None:
    text = TEXT.replace("      day: {references: dim_day}\n      rate:\n", "      rate:\n      day:\n")
    late = text.replace("key: [currency, day]", "key: currency").replace("      day:\n", "")
    table = read_contract(late, "late.yaml").source_table("exchange_rate")
    assert [column.name for column in table.columns] == ["currency", "day", "rate"]


REFUSALS = [
    ("file: {format: csv}\nrow_id: x", "`row_id` is for tables of a database"),
    ("file: {format: csv}\nfull: true", "`full` is for tables of a database, not for a data set: `contents: snapshot` says"),
    ("file: {format: csv}\nschema: sales", "`schema` is for tables of a database"),
    ("file: {format: csv}\ntable: sales", "`table` is for tables of a database"),
    ("file: {format: csv}\nforeign_keys: {name: thing}", "let a fact refer to a dimension by `references`"),
    ("file: {format: xml}", "it must be 'csv', 'json_lines', 'json' or 'parquet'"),
    ("file: {format: json, delimiter: ';'}", "`delimiter` belongs to csv, not to json; remove it"),
    ("file: {format: parquet, encoding: utf-8}", "`encoding` belongs to csv and json_lines, not to parquet"),
    ("file: {format: csv, records: rows}", "`records` belongs to json, not to csv"),
    ("file: {format: csv, delimiter: ';;'}", "at most 1 character"),
    ("file: {format: csv, encoding: klingon}", "'klingon' is not an encoding"),
    ("file: {format: csv, encoding: rot13}", "'rot13' is not an encoding"),
    ("file: {format: csv, version: changed}", "`version` belongs to increments"),
    ("file: {format: csv, contents: increment, version: gone}", "`version` names 'gone', which is not one of its columns"),
    ("file: {format: csv, contents: increment, version: name}", "declare it `not null`"),
    ("file: {format: csv, contents: increment, version: name}", "which is text; it must be integer"),
    ("file: {format: csv, contents: increment, version: thing_id}", "in its key"),
    ("request: {path: /a}", "the source has no `api` that answers it; add it"),
    ("file: {format: csv}\nrequest: {path: /a}", "a data set has either `file` or `request`"),
]


@pytest.mark.parametrize(("entry", "problem"), REFUSALS)
def test_a_data_set_that_can_mean_nothing_is_refused(entry: str, problem: str) -> None:
    with pytest.raises(ContractTextError) as caught:
        one(entry)
    assert problem in str(caught.value)


STARS = [
    ("{fact: thing, columns: {thing_id: , name: }}", "'t' must copy it as a column"),
    ("{fact: thing, columns: {thing_id: , name: , changed: {date_of: changed}}}", "'t' must copy it as a column"),
    ("{fact: thing, version: name, columns: {thing_id: , name: {nullable: false}, changed: }}", "a `version` of its own"),
    ("{dimension: thing, history: true, columns: {thing_id: , name: , changed: }}", "has `history`"),
    (
        "{fact: thing, columns: {thing_id: , name: , changed: {nullable: true}}}",
        "'t' must copy it as a column that is not null",
    ),
    ("{fact: thing, where: name IS NOT NULL, columns: {thing_id: , name: , changed: }}", "'t' has a `where`"),
]


@pytest.mark.parametrize(("star", "problem"), STARS)
def test_a_star_table_that_a_version_can_t_order_is_refused(star: str, problem: str) -> None:
    with pytest.raises(ContractTextError, match=problem):
        one("file: {format: csv, contents: increment, version: changed}", star=star)


@pytest.mark.parametrize("name", ["a.b", "a b", "é", "_a", '"*"', '"' + "a" * 64 + '"'])
def test_a_name_that_can_t_be_a_folder_of_the_drop_zone_is_refused(name: str) -> None:
    with pytest.raises(ContractTextError, match=r"its name must be 1 to 63 letters|at most 63 characters"):
        one("file: {format: csv}", name=name, star=f"{{fact: {name}, columns: {{thing_id: }}}}")


def test_a_data_set_is_neither_joined_nor_carried() -> None:
    star = "{fact: thing, joins: {self: {table: thing, on: thing_id}}, columns: {thing_id: , other: self.name}}"
    with pytest.raises(ContractTextError, match=r"joins 'thing'.*`references`, or join them in a view"):
        one("file: {format: csv}", star=star)
    with pytest.raises(ContractTextError, match="remove it from `carry`"):
        one("file: {format: csv}", more="carry: thing\n")


REQUESTS = [
    ("{path: rates}", "a path begins with one '/'"),
    ("{path: //elsewhere.example/a}", "a path begins with one '/'"),
    ("{path: /a/../b}", "a path begins with one '/'"),
    ("{path: '/a?b=c'}", "write what is sent with it as `parameters`"),
    ("{path: /a, method: DELETE}", "it must be 'GET' or 'POST'"),
    ("{path: /a, paging: {by: cursor}}", "paging by cursor needs `parameter`"),
    ("{path: /a, paging: {by: cursor, parameter: c}}", "paging by cursor needs `at`"),
    ("{path: /a, paging: {by: next_url}}", "paging by next_url needs `at`"),
    ("{path: /a, paging: {by: offset, parameter: from}}", "paging by offset needs `size`"),
    ("{path: /a, paging: {by: page}}", "paging by page needs `parameter`"),
    ("{path: /a, paging: {by: link, at: next}}", "`at` does not go with paging by link"),
    ("{path: /a, paging: {by: link, size_parameter: n}}", "`size_parameter` needs `size`"),
    ("{path: /a, paging: {by: sideways}}", "it must be 'none', 'link'"),
    ("{path: /a, format: csv, paging: {by: next_url, at: next}}", "`at` is a place in a JSON body"),
    ("{path: /a, format: json_lines, contents: increment, since: {parameter: s, at: last}}", "`at` is a place in a JSON body"),
    ("{path: /a, since: {parameter: s, column: changed}}", "write `contents: increment`"),
    ("{path: /a, contents: increment, since: {parameter: s}}", "`since` needs either `column`"),
    ("{path: /a, contents: increment, since: {parameter: s, column: gone}}", "`since` names 'gone'"),
    ("{path: /a, parameters: {page: 7}, paging: {by: page, parameter: page}}", "'page' would be sent with two meanings"),
]


@pytest.mark.parametrize(("request_", "problem"), REQUESTS)
def test_a_request_that_can_t_be_made_is_refused(request_: str, problem: str) -> None:
    with pytest.raises(ContractTextError) as caught:
        asked(request_)
    assert problem in str(caught.value)


APIS = [
    ("{url: api.example}", "it is not an absolute URL"),
    ("{url: 'ftp://api.example'}", "it is not an absolute URL"),
    ("{url: 'https://'}", "it is not an absolute URL"),
    ("{url: 'https://api.example:port'}", "it is not an absolute URL"),
    ("{url: 'https://api.example/a b'}", "it is not an absolute URL"),
    ("{url: 'https://[::1'}", "it is not an absolute URL"),
    ("{url: 'https://me:word@api.example'}", "a URL in a contract must not have credentials"),
    ("{url: 'https://api.example/?key=1'}", "the URL has a query or a fragment"),
    ("{url: 'https://api.example/#a'}", "the URL has a query or a fragment"),
    ("{url: https://api.example, secret: rates}", "`authentication` and `secret` need each other"),
    ("{url: https://api.example, authentication: bearer}", "`authentication` and `secret` need each other"),
    ("{url: https://api.example, authentication: oauth2, secret: rates}", "needs `token_url`"),
    ("{url: https://api.example, authentication: bearer, secret: rates, header: X-Key}", "`header` goes with"),
    ("{url: https://api.example, authentication: bearer, secret: ../rates}", "a secret's name is 1 to 63 letters"),
    ("{url: https://api.example, requests_per_minute: 0}", "greater than or equal to 1"),
]


@pytest.mark.parametrize(("api", "problem"), APIS)
def test_an_api_that_can_t_be_asked_is_refused(api: str, problem: str) -> None:
    with pytest.raises(ContractTextError) as caught:
        asked("{path: /a}", f"api: {api}")
    assert problem in str(caught.value)
    assert "word" not in str(caught.value)


def test_the_tables_of_one_source_are_of_one_kind() -> None:
    mixed = TEXT.replace('        file: {format: csv, delimiter: ";"}\n', "")
    with pytest.raises(ContractTextError, match=r"from files, and 'budget' .* from a database; make them two `sources`"):
        read_contract(mixed, "mixed.yaml")
    both = TEXT.replace("        request:\n", "        file: {format: csv}\n        request:\n").replace("    rates:\n", "")
    with pytest.raises(ContractTextError, match="a data set has either `file` or `request`"):
        read_contract(both, "both.yaml")
    tables = tuple(replace(table, source_name="plans") for table in DELIVERED.source_tables)
    with pytest.raises(ContractError, match=r"from the API https://rates.example/v1, and 'budget' .* from files"):
        replace(DELIVERED, source_tables=tables)


def test_an_api_is_never_sent_the_login_of_a_database() -> None:
    """Where both are kept, in Secrets Manager, a database's secret has the name of its source."""
    rates = TEXT.replace('        file: {format: csv, delimiter: ";"}\n', "").replace(
        "        file: {format: json_lines", "        # {"
    )
    read_contract(rates, "apart.yaml")
    with pytest.raises(ContractTextError, match="'exchange_rate' would send the login of the database 'plans' to an API"):
        read_contract(rates.replace("secret: rates", "secret: plans"), "exposed.yaml")


def test_only_what_records_mean_is_part_of_the_identity() -> None:
    def changed(old: str, new: str) -> set[str]:
        assert old in TEXT
        other = read_contract(TEXT.replace(old, new), "other.yaml")
        return {part.sources[0] for part in (PLANS, RATES) if other.part(part.sources[0]).fingerprint != part.fingerprint}

    assert changed("requests_per_minute: 30", "requests_per_minute: 60") == set()
    assert changed("secret: rates", "secret: other") == set()
    assert changed("https://rates.example/v1", "https://rates.example/v2") == set()
    assert changed("paging: {by: cursor, parameter: cursor, at: next.cursor}", "paging: {by: link}") == set()
    assert changed('first: "2026-01-01"', 'first: "2025-01-01"') == set()
    assert changed("base: EUR", "base: USD") == {"rates"}
    assert changed("path: /rates", "path: /daily") == {"rates"}
    assert changed('delimiter: ";"', "null_text: NA") == {"plans"}
    assert changed("contents: increment, version: updated_at", "contents: increment") == {"plans"}
    databases = tuple(replace(table, dataset=None) for table in DELIVERED.source_tables)
    assert replace(DELIVERED, source_tables=databases).part("plans").fingerprint != PLANS.fingerprint


def test_a_type_that_only_a_database_writes_is_declared_as_text() -> None:
    columns = "{thing_id: integer not null, changed: interval, name: text}"
    with pytest.raises(ContractTextError, match="'changed' is interval, which only a database delivers; declare it text"):
        one("file: {format: csv}", columns=columns)
    one("file: {format: csv}", columns=columns.replace("interval", "numeric"))
    one("file: {format: csv}", columns=columns, star="{fact: thing, columns: {thing_id: , changed: {type: text}}}")
    one("file: {format: csv}", columns=columns, star="{fact: thing, columns: {thing_id: , name: }}")


def test_filters_and_expressions_read_data_sets_as_they_read_tables() -> None:
    star = "{fact: thing, where: name IS NOT NULL, columns: {thing_id: , size: {sql: length(name) * 2, type: integer}}}"
    one("file: {format: csv}", star=star)
    with pytest.raises(ContractTextError, match="a filter reads columns of 'thing' alone"):
        one("file: {format: csv}", star=star.replace("name IS", "other.name IS"))


def test_a_data_set_has_a_key() -> None:
    text = "name: one\nstar: {t: {fact: a, columns: {b: }}}\nsource: {tables: {a: {file: {format: csv}, columns: {b: text}}}}"
    with pytest.raises(ContractTextError, match="`key` is missing: the columns that tell its records apart"):
        read_contract(text, "one.yaml")


@examples(100)
@given(sources())
def test_a_document_with_data_sets_is_read_back_as_it_was_written(source: dict[str, Any]) -> None:
    star = [line for name, entry in star_of(source).items() for line in star_table_lines(name, entry)]
    text = "\n".join(["name: random", "star:", *star, source_text(source)])
    document, _ = parsed(text)
    assert document["source"] == source
    assert list(SCHEMA.iter_errors(document)) == []
    contract = read_contract(text, "random.yaml")
    for table in contract.source_tables:
        assert table.dataset is not None
        declared = source["tables"][table.name]
        entry, form = declared.get("file") or declared["request"], table.dataset.form
        assert (form.format, table.dataset.contents, table.dataset.version) == (
            entry["format"],
            entry["contents"],
            entry.get("version"),
        )
        assert (form.delimiter, form.null, form.path) == (
            entry.get("delimiter", ","),
            entry.get("null_text", ""),
            entry.get("records"),
        )
        assert (table.dataset.request is None) == ("file" in declared)
    assert read_contract(text + "\n# nothing", "random.yaml").fingerprint == contract.fingerprint
    assert hash(contract.source_tables) == hash(read_contract(text, "random.yaml").source_tables)


@pytest.mark.parametrize("name", ["files", "dropzone", "proofs", "quarantine"])
def test_a_source_is_not_called_like_a_folder_of_the_buckets(name: str) -> None:
    with pytest.raises(ContractError, match=f"a source can't be called '{name}', which is a folder of the buckets") as refusal:
        read_contract(TEXT.replace("  plans:", f"  {name}:"), "delivered.yaml")
    assert str(refusal.value).count("a source can't") == 1
