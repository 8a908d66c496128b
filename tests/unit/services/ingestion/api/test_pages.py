"""Each paging leads to every record once, or ends with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.datasets import Pages, Paging
from contracts.state import DatasetState
from services.ingestion.api.client import Limits
from services.ingestion.delivery import UnreadableDeliveryError
from tests.fixtures.http_server import Send, answer, serving
from tests.unit.services.ingestion.api.scene import Scene, records_of


def row(number: int) -> dict[str, Any]:
    return {"currency": f"C{number}", "day": "2026-11-27", "rate": number}


def body(*numbers: int, **more: Any) -> dict[str, Any]:
    return {"rows": [row(number) for number in numbers], **more}


CURSOR = Pages(Paging.CURSOR, "after", at="next.cursor")
NEXT = Pages(Paging.NEXT_URL, at="next")
OFFSET = Pages(Paging.OFFSET, "skip", size=2, size_parameter="limit")
PAGE = Pages(Paging.PAGE, "p", first=0)
LINK = Pages(Paging.LINK)

WALKS: dict[str, tuple[Pages, list[bytes], list[str]]] = {
    "cursor": (
        CURSOR,
        [answer(body(1, next={"cursor": "x y"})), answer(body(2, next={"cursor": 7})), answer(body(3, next={"cursor": None}))],
        ["/rates?base=EUR", "/rates?base=EUR&after=x+y", "/rates?base=EUR&after=7"],
    ),
    "cursor that ends by repeating itself": (
        CURSOR,
        [answer(body(1, 2, 3, next={"cursor": "x"})), answer(body(next={"cursor": "x"}))],
        ["/rates?base=EUR", "/rates?base=EUR&after=x"],
    ),
    "next URL": (
        NEXT,
        [answer(body(1, 2, next="/more?token=a%2Bb")), answer(body(3, next=""))],
        ["/rates?base=EUR", "/more?token=a%2Bb"],
    ),
    "offset": (
        OFFSET,
        [answer(body(1, 2)), answer(body(3)), answer(body())],
        [f"/rates?base=EUR&limit=2&skip={skip}" for skip in (0, 2, 3)],
    ),
    "page number": (
        PAGE,
        [answer(body(1)), answer(body(2, 3)), answer(body())],
        [f"/rates?base=EUR&p={page}" for page in (0, 1, 2)],
    ),
    "link header": (
        LINK,
        [
            answer(body(1), link='</rates?page=0>; rel="prev", </rates?page=2>; rel="next"'),
            answer(body(2, 3), link='</rates?page=1>; rel="prev"'),
        ],
        ["/rates?base=EUR", "/rates?page=2"],
    ),
    "none": (Pages(), [answer(body(1, 2, 3))], ["/rates?base=EUR"]),
}


@pytest.mark.parametrize("kind", WALKS)
async def test_every_page_is_read_once_and_the_places_of_records_count_over_all(kind: str) -> None:
    pages, answers, targets = WALKS[kind]
    async with serving(*answers) as server:
        scene = Scene(server.url)
        found = await records_of(await scene.delivery(pages=pages, parameters={"base": "EUR"}, rows="rows"))
    assert [record.place for record in found] == [1, 2, 3]
    assert [request.target for request in server.requests] == targets


async def test_the_parameters_of_a_post_are_a_json_body() -> None:
    async with serving(answer(body(1, next={"cursor": "x"})), answer(body(2))) as server:
        await Scene(server.url).fetch(method="POST", pages=CURSOR, parameters={"base": "EUR"}, rows="rows")
    assert [(request.method, request.target, request.body) for request in server.requests] == [
        ("POST", "/rates", b'{"base": "EUR"}'),
        ("POST", "/rates", b'{"base": "EUR", "after": "x"}'),
    ]


ENDLESS: dict[str, tuple[Pages, list[bytes | Send], str]] = {
    "repeats a cursor": (CURSOR, [answer(body(1, next={"cursor": "x"}))], "the pages of /rates lead back to one that was read"),
    "repeats a next URL": (NEXT, [answer(body(1, next="/rates"))], "the pages of /rates lead back to one that was read"),
    "ignores the offset": (OFFSET, [answer(body(1, 2))], "the pages of /rates lead back to one that was read"),
    "ignores the page number": (PAGE, [answer(body(1, 2))], "the pages of /rates lead back to one that was read"),
    "walks in a circle": (
        NEXT,
        [answer(body(1, next="/b")), answer(body(2, next="/rates")), answer(body(1, next="/b"))],
        "the pages of /rates lead back to one that was read",
    ),
    "has new pages for ever": (
        CURSOR,
        [answer(body(number, next={"cursor": str(number)})) for number in range(10)],
        "has more than 5 pages",
    ),
    "asks the same again with other bytes": (
        NEXT,
        [answer(body(1, next="/b")), answer(body(2, next="/b")), answer(body(3, next="/b"))],
        "lead back to one that was read",
    ),
}


@pytest.mark.parametrize("case", ENDLESS)
async def test_pages_without_an_end_are_refused(case: str) -> None:
    pages, answers, text = ENDLESS[case]
    async with serving(*answers) as server:
        with pytest.raises(UnreadableDeliveryError, match=text):
            await Scene(server.url, limits=Limits(pages=5)).fetch(pages=pages, rows="rows")
    assert len(server.requests) <= 6


async def test_all_pages_together_have_a_limit() -> None:
    pages = [answer(body(number, next={"cursor": str(number)}, padding="x" * 1000)) for number in range(10)]
    async with serving(*pages) as server:
        with pytest.raises(UnreadableDeliveryError, match="the pages of /rates exceed"):
            await Scene(server.url, limits=Limits(total_bytes=3000)).fetch(pages=CURSOR, rows="rows")
    assert len(server.requests) == 3


async def test_pages_without_a_record_may_be_alike() -> None:
    links = [answer([], link=f'</rates?page={page}>; rel="next"') for page in (2, 3)]
    async with serving(*links, answer([row(1)])) as server:
        assert await Scene(server.url).fetch(pages=LINK) == [row(1)]


@pytest.mark.parametrize(
    ("pages", "sent"),
    [
        (NEXT, answer(body(1, next="http://169.254.169.254/x"))),
        (NEXT, answer(body(1, next="https://127.0.0.1/x"))),
        (NEXT, answer(body(1, next="//evil.example/x"))),
        (NEXT, answer(body(1, next="http://[::1"))),
        (LINK, answer(body(1), link='<http://evil.example/x>; rel="next"')),
    ],
)
async def test_a_next_page_of_another_origin_is_refused(pages: Pages, sent: bytes) -> None:
    async with serving(sent) as server:
        with pytest.raises(UnreadableDeliveryError, match=r"an answer leads to .* only http://127"):
            await Scene(server.url).fetch(pages=pages, rows="rows")
    assert len(server.requests) == 1


@pytest.mark.parametrize("cursor", [["x"], {"a": 1}, 1.5, True])
async def test_a_cursor_that_is_not_a_text_is_refused(cursor: object) -> None:
    async with serving(answer(body(1, next={"cursor": cursor}))) as server:
        with pytest.raises(UnreadableDeliveryError, match=r"at 'next\.cursor' the body has neither a text nor a whole number"):
            await Scene(server.url).fetch(pages=CURSOR, rows="rows")


@pytest.mark.parametrize("cursor", ["\ud800", "a\0b", "x" * 5_000], ids=["half a pair", "a control character", "long"])
async def test_a_cursor_that_no_request_can_send_is_refused(cursor: str) -> None:
    async with serving(answer(body(1, next={"cursor": cursor}))) as server:
        with pytest.raises(UnreadableDeliveryError, match="can't be sent back"):
            await Scene(server.url).fetch(pages=CURSOR, rows="rows")


async def test_a_body_that_is_nested_almost_too_deep_is_refused() -> None:
    deep = b'{"rows": [], "deep": ' + b"[" * 980 + b"]" * 980 + b"}"  # its members can be read one by one
    async with serving(answer(deep)) as server:
        with pytest.raises(UnreadableDeliveryError):
            await Scene(server.url).fetch(pages=CURSOR, rows="rows")


async def test_a_fetch_that_fails_in_the_middle_leaves_no_state() -> None:
    async with serving(answer(body(1, next={"cursor": "x"})), answer(b"", 404)) as server:
        delivery = await Scene(server.url).delivery(DatasetState(since="1"), pages=CURSOR, rows="rows")
        with pytest.raises(UnreadableDeliveryError):
            await records_of(delivery)
        with pytest.raises(RuntimeError):
            delivery.state()


async def test_a_data_set_that_changes_while_it_is_paged_shows_a_record_twice() -> None:
    """A row was inserted before the second page was asked for: the check of duplicates that follows sees its key again."""
    async with serving(answer(body(1, 2)), answer(body(2, 3)), answer(body())) as server:
        found = await Scene(server.url).fetch(pages=OFFSET, rows="rows")
    assert [one["rate"] for one in found] == [1, 2, 2, 3]
