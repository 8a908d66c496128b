"""The letters that a filter matches, compared with an oracle written from the manual, and the syntax of filters."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.failure import FAILURE_ATTRIBUTE
from services.operator.dlq.filters import Filter, WrongFilterError, read_filter, read_moment, read_runs
from services.operator.dlq.letters import Letter, read_letter
from shared.queue import Delivery
from shared.testing import EPOCH
from tests.unit.services.operator.dlq.scene import SERVICE, failure

HEX = "0123456789abcdef"
IDS = st.text("ab1-", min_size=1, max_size=4)
TYPES = ("starlift.batch_ingested.v1", "starlift.batch_ingested.v2", "starlift.ingest_source.v1", "batch_ingested", "…")
ERRORS = ("SourceMismatchError", "KeyError", "Key")
MOMENTS = st.integers(0, 5).map(lambda hours: EPOCH + timedelta(hours=hours))


@st.composite
def deliveries(draw: st.DrawFn) -> Delivery:
    """Anything that may be in a dead-letter queue, from few values, so that filters match."""
    record = failure(
        error_type=draw(st.sampled_from(ERRORS)),
        fingerprint=draw(st.sampled_from(["0" * 16, "0" * 8 + "1" * 8, "f" * 16])),
        last_failed_at=draw(MOMENTS),
        replays=draw(st.integers(0, 4)),
    )
    document: Any = {
        "id": draw(IDS),
        "type": draw(st.sampled_from(TYPES)),
        "data": draw(st.fixed_dictionaries({}, optional={"run": st.integers(1, 6) | st.just("7"), "index": st.integers(0, 3)})),
    }
    document = draw(st.just(document) | st.sampled_from([[], {}, "text", {"id": 7, "type": None, "data": []}]))
    body = draw(st.just(json.dumps(document)) | st.just("{"))
    return Delivery(draw(IDS), body, "receipt", 1, EPOCH, EPOCH, {FAILURE_ATTRIBUTE: record.model_dump_json()})


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "ids": st.lists(IDS, min_size=1, max_size=2).map(tuple),
    "fingerprint": st.sampled_from(["0", "0" * 9, "f" * 16, "00000000"]),
    "error": st.sampled_from(ERRORS),
    "type": st.sampled_from(TYPES),
    "version": st.integers(1, 2),
    "runs": st.tuples(st.integers(1, 3), st.integers(3, 6)),
    "since": MOMENTS,
    "until": MOMENTS,
    "where": st.sampled_from(
        ["body.data.index > `1`", "failure.replays == `2`", "body.data.run", "abs(body.id)", "nothing[::0]"]
    ),
    "replays": st.integers(0, 4),
    "max_replays": st.integers(0, 4),
}
FILTERS = st.fixed_dictionaries({}, optional=VALUES)


def oracle(wanted: dict[str, Any], delivery: Delivery) -> bool:
    """The manual, line by line."""
    record = json.loads(delivery.attributes[FAILURE_ATTRIBUTE])
    try:
        document = json.loads(delivery.body)
    except ValueError:
        document = None
    event = document if isinstance(document, dict) else {}
    data: dict[str, Any] = found if isinstance(found := event.get("data"), dict) else {}
    run, index = data.get("run"), data.get("index")
    kind = named if isinstance(named := event.get("type"), str) else ""
    parts = kind.split(".")
    is_ours = len(parts) == 3 and parts[0] == "starlift"
    failed = datetime.fromisoformat(record["last_failed_at"])
    names = [name for name in (delivery.message_id, event.get("id")) if isinstance(name, str)]
    wheres = {
        "body.data.index > `1`": index is not None and index > 1,
        "failure.replays == `2`": record["replays"] == 2,
        "body.data.run": bool(run),
        "abs(body.id)": isinstance(event.get("id"), int) and event["id"] != 0,  # of a text it can't be computed
        "nothing[::0]": False,
    }
    answers: dict[str, Callable[[Any], bool]] = {
        "ids": lambda value: any(name[: len(one)] == one for one in value for name in names),
        "fingerprint": lambda value: record["fingerprint"][: len(value)] == value,
        "error": lambda value: record["error_type"] == value,
        "type": lambda value: value != "" and value in (kind, parts[1] if is_ours else kind),
        "version": lambda value: is_ours and parts[2] == f"v{value}",
        "runs": lambda value: isinstance(run, int) and run in range(value[0], value[1] + 1),
        "since": lambda value: not failed < value,
        "until": lambda value: failed < value,
        "where": lambda value: wheres[value],
        "replays": lambda value: record["replays"] == value,
        "max_replays": lambda value: not record["replays"] > value,
    }
    return all(answers[name](value) for name, value in wanted.items())


def letter(delivery: Delivery) -> Letter:
    return read_letter(SERVICE, delivery)


@settings(deadline=None)
@given(delivery=deliveries(), wanted=FILTERS)
def test_a_filter_matches_the_letters_described_in_the_manual(delivery: Delivery, wanted: dict[str, Any]) -> None:
    assert Filter(**wanted).matches(letter(delivery)) == oracle(wanted, delivery)


@pytest.mark.parametrize("name", list(VALUES))
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_each_filter_alone_matches_the_letters_described_in_the_manual(name: str, data: st.DataObject) -> None:
    wanted = {name: data.draw(VALUES[name])}
    delivery = data.draw(deliveries())
    assert Filter(**wanted).matches(letter(delivery)) == oracle(wanted, delivery)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # jmespath, of a literal that is not JSON
@settings(deadline=None)
@example(delivery=Delivery("1", "{}", "", 1, EPOCH, EPOCH), where="``")
@given(delivery=deliveries(), where=st.text(string.printable, max_size=20))
def test_no_jmespath_expression_crashes_a_command(delivery: Delivery, where: str) -> None:
    try:
        assert Filter(where=where).matches(letter(delivery)) in (True, False)
    except WrongFilterError:
        return


def test_the_oracle_covers_every_filter_but_the_one_that_queries_the_warehouse() -> None:
    assert set(Filter.model_fields) == {*VALUES, "loaded"}


@pytest.mark.parametrize(
    "where", ["body.data.index > 3", "failure.replays==2", "`1` < -2", "3 < body.data.index", "[?index >= 10]"]
)
def test_a_number_without_backticks_gets_a_hint(where: str) -> None:
    with pytest.raises(WrongFilterError, match=r"is not JMESPath \(.*\); write numbers in backticks"):
        Filter(where=where)


def test_other_syntax_errors_get_no_such_hint() -> None:
    with pytest.raises(WrongFilterError, match=r"--where '\[' is not JMESPath \(.*\); see jmespath.org"):
        Filter(where="[")
    with pytest.raises(WrongFilterError, match=r"is not JMESPath \(it is nested too deeply\)"):
        Filter(where="!" * 3000 + "body")


def test_an_unknown_function_or_wrong_argument_count_is_an_error() -> None:
    found = letter(Delivery("1", "{}", "", 1, EPOCH, EPOCH))
    for where in ("lenght(body) > `1`", "length(body, body)"):
        with pytest.raises(WrongFilterError, match=r"^--where 'len.* is not JMESPath \(.*function.*\); see jmespath.org"):
            Filter(where=where).matches(found)


NOW = datetime(2026, 11, 5, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-11-05T08:00:00Z", datetime(2026, 11, 5, 8, 0, tzinfo=UTC)),
        ("2026-11-05T08:00:00+02:00", datetime(2026, 11, 5, 6, 0, tzinfo=UTC)),
        ("2026-11-05 08:00", datetime(2026, 11, 5, 8, 0, tzinfo=UTC)),
        ("2026-11-05", datetime(2026, 11, 5, 0, 0, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_time_or_an_age(text: str, moment: datetime) -> None:
    assert read_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["yesterday", "2 h", "-2h", "999999d", "0000-01-01", "1.5h", "2h "])
def test_an_invalid_moment_is_refused(text: str) -> None:
    with pytest.raises(WrongFilterError, match="is not a time; write 90s, 15m, 2h, 3d, or 2026-11-05T08:00:00Z"):
        read_moment(text, NOW)


@given(st.text(max_size=12))
@settings(deadline=None)
def test_any_text_is_parsed_as_a_moment_or_refused(text: str) -> None:
    try:
        assert read_moment(text, NOW).tzinfo is not None
    except WrongFilterError:
        return


def test_runs_are_a_number_or_a_range() -> None:
    assert (read_runs("17"), read_runs("17..21")) == ((17, 17), (17, 21))
    for text in ("21..17", "x", "17..", "..3", "1-2", "", "1" * 30):
        with pytest.raises(WrongFilterError, match="is not a run; write 17, or"):
            read_runs(text)


def test_options_that_are_not_given_do_not_filter() -> None:
    nothing = dict.fromkeys(Filter.model_fields)
    assert read_filter(nothing, NOW) == Filter()
    assert read_filter(nothing | {"ids": []}, NOW) == Filter()
    assert read_filter(nothing | {"replays": 0, "runs": "7"}, NOW) == Filter(replays=0, runs=(7, 7))


@pytest.mark.parametrize("name", ["fingerprint", "error", "type", "runs", "since", "until", "where"])
def test_an_empty_value_is_refused_because_it_would_match_every_letter(name: str) -> None:
    """`--fingerprint "$UNSET"` of a script must not discard a whole queue."""
    with pytest.raises(WrongFilterError, match="is empty; leave the option out, or give it one"):
        read_filter({name: ""}, NOW)


def test_an_empty_id_is_refused_even_next_to_a_valid_one() -> None:
    with pytest.raises(WrongFilterError, match="the value of --id is empty"):
        read_filter({"ids": ["ab", ""]}, NOW)
