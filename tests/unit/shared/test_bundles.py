from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given, settings

from contracts.column_types import BIGINT, INTEGER, TEXT, numeric
from shared.bundles import decode_bundle, encode_bundle, frame_of, some_columns
from shared.codecs import codec_of
from shared.parquet import NewerColumnsError, empty_frame
from tests.unit.shared.test_parquet import ROWS, TYPES, Row, rows_of
from tests.unit.shared.test_parquet import frame_of as frame_of_rows

MONEY = {"money": numeric(10, 2)}


@given(ROWS)
@settings(deadline=None, max_examples=60)
def test_every_value_comes_back_as_it_was(rows: list[Row]) -> None:
    body = encode_bundle([("everything", frame_of_rows(rows), TYPES, ()), ("nothing", empty_frame(TYPES), TYPES, ())])
    found = decode_bundle(body)
    frame, empty = frame_of(found["everything"], TYPES), frame_of(found["nothing"], TYPES)
    assert rows_of(frame) == rows
    assert rows_of(empty) == []
    for one in (frame, empty):
        assert [str(one[name].dtype) for name in TYPES] == [codec_of(kind).frame for kind in TYPES.values()]


def test_null_is_none_and_never_confused_with_a_text() -> None:
    texts = [None, "", "NULL", "None", "nan", "NaN", "<NA>", r"\N", " ", "\ud7ff\ue000\U0010ffff"]
    body = encode_bundle([("rows", frame_of_rows([(text,) for text in texts], {"text": TEXT}), {"text": TEXT}, ())])
    assert frame_of(decode_bundle(body)["rows"], {"text": TEXT})["text"].tolist() == texts


def test_parts_of_one_name_become_one_table() -> None:
    types = {"number": INTEGER, "text": TEXT}
    parts = [("rows", frame_of_rows([row], types), types, ()) for row in ((1, "a"), (2, None))]
    assert rows_of(frame_of(decode_bundle(encode_bundle(parts))["rows"], types)) == [(1, "a"), (2, None)]


def test_the_same_rows_make_the_same_bytes() -> None:
    part = ("rows", frame_of_rows([(1, "a")], {"number": INTEGER, "text": TEXT}), {"number": INTEGER, "text": TEXT}, ())
    assert encode_bundle([part]) == encode_bundle([part])


def test_a_column_of_a_newer_contract_is_refused_and_a_carried_one_left_out() -> None:
    types = {"number": INTEGER, "colour": TEXT}
    frame = frame_of_rows([(1, "red")], types)
    with pytest.raises(NewerColumnsError, match="does not have: \\['colour'\\]; deploy the newer contract"):
        frame_of(decode_bundle(encode_bundle([("rows", frame, types, ())]))["rows"], {"number": INTEGER})
    rows = decode_bundle(encode_bundle([("rows", frame, types, ["colour"])]))["rows"]
    assert list(frame_of(rows, {"number": INTEGER}).columns) == ["number"]
    with pytest.raises(KeyError, match="colour"):
        frame_of(rows, types)


def test_some_columns_are_read_whatever_others_there_are() -> None:
    types = {"number": INTEGER, "text": TEXT} | MONEY
    rows = decode_bundle(encode_bundle([("rows", frame_of_rows([(1, "a", 125)], types), types, ())]))["rows"]
    assert rows_of(some_columns(rows, MONEY)) == [(125,)]
    with pytest.raises(KeyError, match="renamed"):
        some_columns(rows, {"renamed": TEXT})


@pytest.mark.parametrize("known", [numeric(10, 4), numeric(10, 0), BIGINT])
def test_a_decimal_is_never_read_at_another_scale(known: object) -> None:
    rows = decode_bundle(encode_bundle([("rows", frame_of_rows([(125,)], MONEY), MONEY, ())]))["rows"]
    with pytest.raises(NewerColumnsError, match="has scale 2"):
        frame_of(rows, {"money": known})  # type: ignore[dict-item]


def test_a_whole_number_is_not_read_as_a_decimal() -> None:
    types = {"money": BIGINT}
    rows = decode_bundle(encode_bundle([("rows", frame_of_rows([(125,)], types), types, ())]))["rows"]
    with pytest.raises(NewerColumnsError, match="has scale 0"):
        frame_of(rows, MONEY)


def test_a_bundle_is_plain_json() -> None:
    """Others may read it: a number is a number, a text a text."""
    types = {"number": BIGINT, "text": TEXT} | MONEY
    body = encode_bundle([("item.base", frame_of_rows([(2**62, "ü", 125), (None, None, None)], types), types, ())])
    assert json.loads(gzip.decompress(body)) == {
        "tables": {
            "item.base": {
                "columns": {"number": [2**62, None], "text": ["ü", None], "money": [125, None]},
                "scales": {"money": 2},
                "carried": [],
            }
        }
    }
