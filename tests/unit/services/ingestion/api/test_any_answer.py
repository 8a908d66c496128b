"""Whatever a server sends, a fetch ends with records, a refusal or an outage: never with an error that has no recovery."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from contracts.datasets import Format, Pages, Paging
from services.ingestion.api.client import Limits
from services.ingestion.delivery import UnreadableDeliveryError
from shared.errors import DependencyDownError
from tests.fixtures.http_server import answer, serving
from tests.fixtures.properties import examples
from tests.unit.services.ingestion.api.scene import Scene

LIMITS = Limits(silence=timedelta(seconds=1), tries=1, pages=4)
PAGES = [
    Pages(),
    Pages(Paging.LINK),
    Pages(Paging.NEXT_URL, at="next"),
    Pages(Paging.CURSOR, "c", at="a.b"),
    Pages(Paging.OFFSET, "skip", size=2),
]
HEADERS = [
    "Location", "Link", "Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding", "Retry-After", "ETag",
    "Last-Modified", "Set-Cookie", "Connection",
]  # fmt: skip
TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=40) | st.sampled_from(
    ["<http://[>; rel=next", '<//x>; rel="next"', "http://[::1", "text/csv; charset=punycode", "json; charset=rot13", "gzip",
     "br", "deflate", "chunked", "-1", "1e9", "application/json; charset=undefined", "//:99999", "json; charset=utf-16"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["next", "a", "b", "currency", "day"]), inner),
    max_leaves=8,
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer that is well-formed but for a header or two, or that is cut off."""
    body = draw(JSON | st.binary(max_size=60))
    status = draw(st.sampled_from([200, 200, 200, 204, 206, 301, 302, 307, 304, 401, 404, 429, 500, 999, 100, 101]))
    extra = draw(st.dictionaries(st.sampled_from(HEADERS), TEXT, max_size=2))
    head, _, data = answer(body, status).partition(b"\r\n\r\n")
    lines = [f"{name}: {value}".encode("latin-1") for name, value in extra.items()]
    sent = b"\r\n".join([head, *lines]) + b"\r\n\r\n" + data
    return sent[: draw(st.integers(0, len(sent)) | st.just(len(sent)))]


@examples(80)
@given(
    sent=st.lists(answers() | st.binary(max_size=80), min_size=1, max_size=3),
    pages=st.sampled_from(PAGES),
    form=st.sampled_from(Format),
)
@example(sent=[answer([], link="<http://[>; rel=next")], pages=PAGES[1], form=Format.JSON)
@example(sent=[answer([], content_type="application/json; charset=rot13")], pages=PAGES[0], form=Format.CSV)
@example(sent=[answer(b"\x1f\x8b\x08")], pages=PAGES[2], form=Format.JSON)
@example(sent=[answer(b"[" * 100_000)], pages=PAGES[2], form=Format.JSON)
def test_any_answer_ends_in_one_of_three_ways(sent: list[bytes], pages: Pages, form: Format) -> None:
    async def fetch() -> None:
        async with serving(*sent) as server:
            with suppress(UnreadableDeliveryError, DependencyDownError):
                await Scene(server.url, limits=LIMITS).fetch(pages=pages, format_=form)

    asyncio.run(fetch())
