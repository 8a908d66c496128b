"""What a fetch begins after, what it leaves, and when each data set has its turn."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import Any

import pytest

from contracts.column_types import INTEGER, TIMESTAMP, TIMESTAMPTZ, ColumnType
from contracts.datasets import Api, Contents, Format, Pages, Paging
from contracts.files import FileRecord
from contracts.state import DatasetState
from contracts.tables import SourceColumn
from services.ingestion.api.deliveries import ApiDelivery
from services.ingestion.delivery import Taken, UnreadableDeliveryError
from shared.errors import ServerBusyError
from tests.fixtures.http_server import answer, serving
from tests.unit.services.ingestion.api.scene import Scene, records_of

SINCE: dict[str, Any] = {
    "contents": Contents.INCREMENT,
    "since_parameter": "since",
    "since_column": "day",
    "first_since": "2026-01-01",
}


def row(day: object) -> dict[str, Any]:
    return {"currency": "USD", "day": day, "rate": 1}


async def state_after(delivery: ApiDelivery) -> DatasetState:
    await records_of(delivery)
    return delivery.state()


async def test_an_increment_begins_after_the_greatest_value_so_far() -> None:
    async with serving(
        answer([row("2026-11-27"), row("2026-11-29"), row("2026-11-28")]), answer([row("2026-11-29")])
    ) as server:
        scene = Scene(server.url)
        first = await state_after(await scene.delivery(**SINCE))
        second = await state_after(await scene.delivery(first, **SINCE))
    assert [request.target for request in server.requests] == ["/rates?since=2026-01-01", "/rates?since=2026-11-29"]
    assert (first.since, second.since) == ("2026-11-29", "2026-11-29")


async def test_without_a_first_position_the_first_request_asks_for_everything() -> None:
    async with serving(answer([])) as server:
        state = await state_after(await Scene(server.url).delivery(**SINCE | {"first_since": None}))
    assert server.requests[0].target == "/rates"
    assert state.since is None


@pytest.mark.parametrize(
    ("kind", "values", "greatest"),
    [
        (INTEGER, [9, "10", 2], "10"),
        (TIMESTAMPTZ, ["2026-11-29T23:30:00-02:00", "2026-11-30T00:30:00Z"], "2026-11-29T23:30:00-02:00"),
        (TIMESTAMP, ["2026-11-29 23:30:00", "2026-11-30T00:30:00", None, "soon", ""], "2026-11-30T00:30:00"),
        (INTEGER, ["NaN", 5, None, "Infinity"], "5"),
    ],
)
async def test_the_greatest_value_is_that_of_the_column_s_type(kind: ColumnType, values: list[object], greatest: str) -> None:
    async with serving(answer([row(value) for value in values])) as server:
        scene = Scene(server.url)
        table = scene.table(**SINCE)
        columns = tuple(SourceColumn("day", kind) if one.name == "day" else one for one in table.columns)
        delivery = await scene.deliveries(replace(table, columns=columns)).next({})
        assert delivery is not None
        assert (await state_after(delivery)).since == greatest


async def test_an_increment_may_begin_after_a_cursor_of_the_last_body() -> None:
    pages = [answer({"rows": [row("2026-11-29")], "sync": f"s-{number}", "next": number or None}) for number in (1, 2, 0)]
    walk = {"contents": Contents.INCREMENT, "since_parameter": "sync", "cursor_at": "sync", "rows": "rows"}
    async with serving(*pages) as server:
        scene = Scene(server.url)
        delivery = await scene.delivery(DatasetState(since="s-0"), **walk, pages=Pages(Paging.CURSOR, "next", at="next"))
        state = await state_after(delivery)
    assert state.since == "s-0"
    assert server.requests[0].target == "/rates?sync=s-0"
    assert server.requests[2].target == "/rates?sync=s-0&next=2"


@pytest.mark.parametrize("change", [{"parameters": {"base": "USD"}}, {"path": "/v2"}, {"since_parameter": "from"}, {}])
async def test_another_request_begins_at_its_beginning(change: dict[str, Any]) -> None:
    async with serving(answer([row("2026-11-27")])) as server:
        scene = Scene(server.url)
        first = await state_after(await scene.delivery(**SINCE))
        table = scene.table(**SINCE | change)
        if not change:
            table = replace(table, columns=(*table.columns, SourceColumn("note", INTEGER, nullable=True)))
        second = await scene.deliveries(table).next({table.name: first})
        assert second is not None
        state = await state_after(second)
    assert "2026-01-01" in server.requests[1].target
    assert state.sha256 != first.sha256
    assert state.since == first.since


async def test_a_tag_that_is_not_ascii_is_not_kept() -> None:
    head = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nETag: "\xff"\r\n\r\n'
    async with serving(head + b"[]") as server:
        assert (await state_after(await Scene(server.url).delivery())).etag is None


async def test_what_has_not_changed_is_not_sent_again() -> None:
    tags = {"etag": '"v1"', "last_modified": "Mon, 30 Nov 2026 10:00:00 GMT"}
    async with serving(answer([row("2026-11-27")], **tags), answer(b"", 304)) as server:
        scene = Scene(server.url)
        first = await state_after(await scene.delivery())
        again = await scene.delivery(first)
        assert await records_of(again) == []
    assert (first.etag, first.last_modified) == ('"v1"', "Mon, 30 Nov 2026 10:00:00 GMT")
    assert server.requests[1].headers["if-none-match"] == '"v1"'
    assert server.requests[1].headers["if-modified-since"] == "Mon, 30 Nov 2026 10:00:00 GMT"
    assert again.state() == first


@pytest.mark.parametrize("request_", [SINCE, {"pages": Pages(Paging.LINK)}, {"method": "POST"}], ids=["since", "pages", "post"])
async def test_only_a_single_answer_with_everything_is_asked_for_conditionally(request_: dict[str, Any]) -> None:
    known = DatasetState(sha256="00", etag='"v1"', last_modified="Mon, 30 Nov 2026 10:00:00 GMT")
    async with serving(answer([], etag='"v2"')) as server:
        delivery = await Scene(server.url).delivery(known, **request_)
        assert (await state_after(delivery)).etag is None
    assert not {"if-none-match", "if-modified-since"} & {*server.requests[0].headers}


async def test_a_whole_answer_is_asked_for_again_when_the_last_one_is_to_be_taken_again() -> None:
    """A delivery with bad records leaves no sha256: the contract may have been corrected since."""
    async with serving(answer([])) as server:
        await Scene(server.url).fetch(DatasetState(etag='"v1"'))
    assert "if-none-match" not in server.requests[0].headers


async def test_an_answer_that_nothing_changed_is_refused_where_that_was_not_asked() -> None:
    async with serving(answer(b"", 304)) as server:
        with pytest.raises(UnreadableDeliveryError):
            await Scene(server.url).fetch()


async def test_the_same_bytes_have_the_same_hash() -> None:
    async with serving(answer([row("2026-11-27")])) as server:
        scene = Scene(server.url)
        states = [await state_after(await scene.delivery()) for _ in range(2)]
        other = await state_after(await scene.delivery(pages=Pages()))
    assert states[0].sha256 == states[1].sha256 == other.sha256


async def test_an_answer_without_content_has_no_record() -> None:
    async with serving(answer(b"", 204)) as server:
        delivery = await Scene(server.url).delivery(DatasetState(since="2026-11-27"), **SINCE)
        assert (await state_after(delivery)).since == "2026-11-27"


async def test_requests_are_spaced_as_the_rate_says() -> None:
    pages = [answer([row(str(number))]) for number in range(5)]
    async with serving(*pages, answer([])) as server:
        scene = Scene(server.url)
        asked = Api(server.url, requests_per_minute=30)
        await scene.fetch(api=asked, pages=Pages(Paging.PAGE, "p"))
    assert scene.time.slept == [2.0] * 5


async def test_each_data_set_has_its_turn_once_in_a_round() -> None:
    scene = Scene("http://127.0.0.1:1")
    deliveries = scene.deliveries(*(scene.table(name) for name in "abc"))
    for _ in range(2):
        for name in "abc":
            found = await deliveries.next({})
            assert found is not None
            assert found.table.name == name
            await deliveries.settle(found, Taken(1))
        assert await deliveries.next({}) is None


async def test_a_data_set_that_fails_comes_last_and_holds_up_no_other() -> None:
    async with serving(answer(b"", 429, retry_after="3600")) as server:
        scene = Scene(server.url)
        deliveries = scene.deliveries(*(scene.table(name) for name in "abc"))
        turns = []
        for minutes in (0, 0, 0, 0, 0, 6, 0, 0):
            scene.time.seconds += 60 * minutes
            found = await deliveries.next({})
            assert found is not None
            turns.append(found.table.name)
            if found.table.name == "a":
                with pytest.raises(ServerBusyError):
                    await records_of(found)
            else:
                await deliveries.settle(found, Taken(1))
    assert "".join(turns) == "abcaabca"


async def test_a_data_set_of_files_is_not_asked_for() -> None:
    scene = Scene("http://127.0.0.1:1")
    table = scene.table()
    assert table.dataset is not None
    files = replace(table, dataset=replace(table.dataset, request=None))
    with pytest.raises(Exception, match="is not a data set of an API"):
        await scene.deliveries(files).next({})


async def test_the_encoding_is_the_one_that_the_header_names() -> None:
    body = "currency,day,rate\nZŁ,2026-11-27,4\n".encode("iso8859-2")
    async with serving(answer(body, content_type="text/csv; charset=ISO-8859-2")) as server:
        assert await Scene(server.url).fetch(format_=Format.CSV) == [{"currency": "ZŁ", "day": "2026-11-27", "rate": "4"}]


async def test_an_answer_may_be_a_compressed_file() -> None:
    body = gzip.compress(b"currency,day,rate\nUSD,2026-11-27,4\n")
    async with serving(answer(body, content_type="application/gzip")) as server:
        assert len(await Scene(server.url).fetch(format_=Format.CSV)) == 1


async def test_the_record_of_a_fetch_replaces_that_of_the_one_before() -> None:
    async with serving(answer([row("2026-11-27")])) as server:
        scene = Scene(server.url)
        deliveries = scene.deliveries(scene.table())
        for taken in (Taken(7, 1), Taken(None, reason="why"), Taken(None, reason="same", is_unchanged=True)):
            found = await deliveries.next({})
            assert found is not None
            await records_of(found)
            await deliveries.settle(found, taken)
            assert await deliveries.next({}) is None
            ((key, body),) = scene.objects.buckets["landing"].items()
            record = FileRecord.model_validate_json(body)
            assert key == "files/exchange_rate/last-fetch.json"
            assert (record.key, record.outcome, record.reason) == ("/rates", taken.outcome, taken.reason)
            assert (record.run, record.records, record.byte_count) == (taken.run, taken.records, found.byte_count)


async def test_an_error_names_no_value_of_the_query() -> None:
    async with serving(answer(b"", 404)) as server:
        with pytest.raises(UnreadableDeliveryError) as raised:
            await Scene(server.url).fetch(parameters={"customer": "s3cret"})
    assert "s3cret" not in str(raised.value)
