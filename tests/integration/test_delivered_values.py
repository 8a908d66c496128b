"""What is read in a text of a file or of an API is what PostgreSQL reads in it, whatever its settings are, or it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import asyncpg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    BYTEA,
    DATE,
    INTEGER,
    JSONB,
    TEXT,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    ColumnType,
    enum,
    numeric,
    verbatim,
)
from shared.codecs import codec_of
from shared.codecs.codec import Codec
from shared.sql import literal
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.properties import examples

Judge = Callable[[list[str]], list[bool | None]]

SETTINGS = ({"TimeZone": "UTC", "DateStyle": "ISO, MDY"}, {"TimeZone": "Pacific/Auckland", "DateStyle": "German, DMY"})
EQUAL = """CREATE FUNCTION pg_temp.is_equal(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE found boolean;
BEGIN EXECUTE 'SELECT ' || condition INTO found; RETURN found; EXCEPTION WHEN others THEN RETURN NULL; END $$"""

SPACE = st.sampled_from(["", "", "", " ", "\t", "\u00a0", "\n"])
NUMBERS = st.from_regex(r"\A[+-]?[0-9_]{0,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,4})?\Z") | st.sampled_from(
    ["NaN", "Infinity", "0x1F", "1e400", "1e-400", "0e999", "--1", "1.", ".5", ".", "1,5", "٣", "²", "9" * 30, "1" + "0" * 40]
)
DAYS = st.from_regex(r"\A[0-9]{4}-[01][0-9]-[0-3][0-9]\Z") | st.dates().map(str)
DAYS |= st.sampled_from(
    ["infinity", "today", "now", "0000-01-01", "20261101", "1/2/2026", "2026-W05-1", "44-03-15 BC", "2026-02-30"]
)
TIMES = st.from_regex(r"\A[0-2][0-9]:[0-6][0-9](:[0-6][0-9]([.,][0-9]{1,9})?)?\Z") | st.times().map(str)
TIMES |= st.sampled_from(["24:00", "23:59:60", "04:05 PM", "allballs", "12:00:00.0000005", "12:00:00.1234560"])
ZONES = st.from_regex(r"\A ?[+-][01][0-9](:?[0-6][0-9](:[0-5][0-9])?)?\Z") | st.sampled_from(
    ["", "", "Z", "z", " Z", " UTC", "+00", "-00:00", "+15:59", "+16", " Europe/London", " BC"]
)
MOMENTS = st.tuples(DAYS, st.sampled_from([" ", "T", "t", "  ", "_"]), TIMES, ZONES).map("".join) | DAYS
JSON = st.recursive(
    st.from_regex(r"\A-?[0-9]{1,5}(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?\Z")
    | st.sampled_from(
        ["null", "true", "NaN", "01", '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u000b\\/\x7f"', '"a\tb"', "1e999999"]
    )
    | st.text().map(lambda text: '"' + text.replace("\\", "").replace('"', '\\"') + '"'),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: "[" + " ,".join(values) + "]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"aa"', '"é"', '""']), inner), max_size=3).map(
            lambda members: "{" + ",\n".join(f"{name}: {value}" for name, value in members) + "}"
        )
    ),
    max_leaves=5,
)
TEXTS: Mapping[ColumnType, st.SearchStrategy[str]] = {
    INTEGER: NUMBERS,
    BIGINT: NUMBERS,
    numeric(12, 2): NUMBERS,
    numeric(18, 18): NUMBERS,
    numeric(5, 0): NUMBERS,
    verbatim("numeric"): NUMBERS,
    verbatim("numeric(20,3)"): NUMBERS,
    verbatim("numeric(20,-2)"): NUMBERS,
    BOOLEAN: st.sampled_from(
        ["true", "T", "tr", "yes", "Y", "on", "o", "of", "OFF", "1", "0", "01", "-1", "ﬀ", "ofﬀ", "oK", ""]
    ),
    DATE: DAYS | MOMENTS,
    TIME: TIMES | st.tuples(TIMES, ZONES).map("".join),
    TIMESTAMP: MOMENTS,
    TIMESTAMPTZ: MOMENTS,
    UUID: st.uuids().flatmap(
        lambda one: st.sampled_from([str(one), one.hex, str(one).upper(), one.urn, f"{{{one}}}", f"{one}_"])
    ),
    JSONB: JSON,
    BYTEA: st.binary(max_size=5).map(lambda one: "\\x" + one.hex())
    | st.sampled_from(["\\x0", "\\xAB", "\\x a", "abc", "\\001"]),
    TEXT: st.text(),
    enum("a", "b"): st.text(),
}


@pytest.fixture(scope="module", params=SETTINGS, ids=["ISO", "German"])
def judge(request: pytest.FixtureRequest, postgres_cluster: TestCluster) -> Iterator[tuple[Judge, bool]]:
    """A function that asks whether conditions are true, NULL for one that fails; and whether moments are spelled as in keys."""
    name, loop = postgres_cluster.create_database(), asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(postgres_cluster.url(name), server_settings=request.param))
    loop.run_until_complete(connection.execute(EQUAL))

    def ask(conditions: list[str]) -> list[bool | None]:
        query = "SELECT pg_temp.is_equal(c) FROM unnest($1::text[]) WITH ORDINALITY AS v (c, place) ORDER BY place"
        return [row[0] for row in loop.run_until_complete(connection.fetch(query, conditions))]

    yield ask, request.param["DateStyle"].startswith("ISO")
    loop.run_until_complete(connection.close())
    loop.close()
    postgres_cluster.drop_database(name)


def _is_read(codec: Codec, text: str) -> bool:
    """Whether a column of such texts has values at once."""
    try:
        return bool(codec.delivered_all([text]))
    except (ValueError, OverflowError):
        return False


@pytest.mark.parametrize("kind", TEXTS, ids=lambda kind: f"{kind.kind}-{kind.sql}")
def test_a_text_means_what_postgresql_reads_in_it(judge: tuple[Judge, bool], kind: ColumnType) -> None:
    codec, (ask, spells_iso) = codec_of(kind), judge

    @settings(examples(15), phases=(Phase.explicit, Phase.generate))  # the text that differs is named: shrinking takes minutes
    @given(st.lists(st.tuples(SPACE, TEXTS[kind], SPACE).map("".join), min_size=10, max_size=10))
    def check(texts: list[str]) -> None:
        conditions = {}
        for text in texts:
            with suppress(ValueError, OverflowError):
                assert [codec.delivered(text)] == list(codec.delivered_all([text])), (
                    "a column is read otherwise than its values"
                )
            try:
                value = codec.delivered(text)
            except (ValueError, OverflowError):
                assert not _is_read(codec, text)
                continue
            read = f"{literal(text)}::{kind.unbounded_sql}"
            loaded = codec.loaded(literal(value) if isinstance(value, str) else str(value))
            conditions[text, "value"] = f"{loaded} IS NOT DISTINCT FROM {read}"
            if kind.may_be_key and spells_iso:
                spelled = codec.spelled_key(value)
                named = spelled if isinstance(spelled, int) else literal(spelled)
                sql = read if kind.is_whole_number else codec.key_text(read)
                conditions[text, "key"] = f"{named} = {sql}"
            if kind.is_verbatim and not kind.is_decimal:
                conditions[text, "text"] = f"{literal(value)} = {read}::text"
        wrong = [one for one, is_equal in zip(conditions, ask(list(conditions.values())), strict=True) if not is_equal]
        assert wrong == []

    check()
