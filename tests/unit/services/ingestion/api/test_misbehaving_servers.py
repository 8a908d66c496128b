"""Servers that break off, hang, flood, lie or lead astray: each has one answer, and none stops the service."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.datasets import Format
from services.ingestion.api.client import Limits
from services.ingestion.delivery import UnreadableDeliveryError
from shared.codecs.codec import MIB
from shared.errors import DependencyDownError, ServerBusyError
from tests.fixtures.authority import Authority
from tests.fixtures.http_server import Send, answer, serving
from tests.unit.services.ingestion.api.scene import Scene, Time

ROW = {"currency": "USD", "day": "2026-11-27", "rate": "1.25"}
PATIENT = Limits(tries=2)
IMPATIENT = Limits(silence=timedelta(seconds=0.1), tries=2)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def hang(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def begins(data: bytes) -> Send:
    """Sends the beginning of an answer, and then nothing."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.Event().wait()

    return send


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.005)


async def zeros(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Connection: close\r\n\r\n")
    for _ in range(1024):
        writer.write(bytes(MIB))
        await writer.drain()


PASSING: dict[str, tuple[bytes | Send, str]] = {
    "hangs before its headers": (hang, "/rates was not answered in full"),
    "hangs after its headers": (begins(HEAD + b"Content-Length: 100\r\n\r\n"), "not answered in full"),
    "hangs in its body": (begins(HEAD + b"Content-Length: 100\r\n\r\n[{"), "not answered in full"),
    "closes without an answer": (b"", "not answered in full"),
    "sends half a body": (HEAD + b"Content-Length: 100\r\nConnection: close\r\n\r\n[]", "not answered in full"),
    "breaks off between chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", "not answered in full"),
    "sends gzip that is not": (answer(b"[]", content_encoding="gzip"), "not answered in full"),
    "fails for ever": (answer(b"", 500), "GET /rates was answered 500;"),
    "is overloaded": (answer(b"", 503), "answered 503"),
    "limits for ever": (answer(b"", 429), "answered 429"),
}


@pytest.mark.parametrize("case", PASSING)
async def test_what_may_pass_is_tried_again_and_then_pauses_the_source(case: str) -> None:
    sent, text = PASSING[case]
    limits = IMPATIENT if "hangs" in case else PATIENT  # a slow machine may take long for a whole answer
    async with serving(sent) as server:
        with pytest.raises(ServerBusyError, match=text):
            await Scene(server.url, limits=limits).fetch()
    # The HTTP library asks once more by itself where the server closes without an answer.
    assert len(server.requests) == IMPATIENT.tries * (2 if sent == b"" else 1)


REFUSED: dict[str, tuple[bytes | Send, str]] = {
    "is not found": (answer(b"", 404), r"GET /rates was answered 404; correct the path or the parameters"),
    "wants credentials": (answer(b"", 401), "401; name a secret in the contract"),
    "forbids it": (answer(b"", 403), "403; name a secret"),
    "is not ready": (answer([], 202), "answered 202"),
    "sends a part": (answer([], 206), "answered 206"),
    "sends a login page": (
        answer(b"<html>", content_type="text/html"),
        "text/html, which is not data; this may be a login page",
    ),
    "sends a picture": (answer(b"", content_type="image/png"), "answered with image/png"),
    "sends no JSON": (answer(b"[1,"), "or not JSON, at line 1"),
    "sends its records elsewhere": (answer({"data": []}), "it has an object where the records should be"),
    "sends an unknown encoding": (answer([], content_type="application/json; charset=klingon"), "unknown encoding 'klingon'"),
    "sends a gigabyte": (zeros, "/rates exceeds 2 MiB"),
    "sends a gigabyte in a megabyte": (
        answer(gzip.compress(bytes(64 * MIB)), content_encoding="gzip"),
        "/rates exceeds 2 MiB",
    ),
    "has too many headers": (answer([], 200, **{f"x{number}": "y" for number in range(1000)}), "not answered with valid HTTP"),
    "has a giant header": (answer([], x="y" * 100_000), "not answered with valid HTTP"),
    "speaks another protocol": (b"SSH-2.0-OpenSSH\r\n\r\n", "not answered with valid HTTP"),
    "redirects to the metadata": (
        answer(b"", 302, location="http://169.254.169.254/latest"),
        "leads to http://169.254.169.254;",
    ),
    "redirects to a private name": (answer(b"", 302, location="http://db.internal/x"), "leads to http://db.internal"),
    "redirects to another port": (answer(b"", 307, location="http://127.0.0.1:1/x"), "leads to http://127.0.0.1:1;"),
    "redirects to a file": (answer(b"", 302, location="file:///etc/passwd"), "leads to an invalid URL"),
    "redirects nowhere": (answer(b"", 302), "leads to"),
    "redirects with a password": (answer(b"", 302, location="http://a:b@127.0.0.1/x"), "leads to"),
    "redirects in a circle": (answer(b"", 302, location="/rates"), "redirected more than 3 times"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_no_try_helps_is_refused_with_a_sentence(case: str) -> None:
    sent, text = REFUSED[case]
    async with serving(sent) as server:
        with pytest.raises(UnreadableDeliveryError, match=text):
            await Scene(server.url, limits=Limits(answer_bytes=2 * MIB)).fetch()
    assert len(server.requests) <= (4 if "circle" in case else 2)


@pytest.mark.parametrize("form", [Format.CSV, Format.JSON_LINES])
async def test_lines_whose_end_is_not_announced_are_refused_since_they_may_be_cut_off(form: Format) -> None:
    """A whole snapshot without its last lines would mark their rows as deleted."""
    sent = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\ncurrency,day,rate\nUSD,2026-11-27,1\n"
    async with serving(sent) as server:
        with pytest.raises(UnreadableDeliveryError, match="without Content-Length or chunks"):
            await Scene(server.url).fetch(format_=form)


async def test_a_slow_drip_ends_at_the_limit_of_an_answer() -> None:
    limits = Limits(answer=timedelta(seconds=0.2), tries=1)
    async with serving(drip) as server:
        with pytest.raises(ServerBusyError, match="not answered in full"):
            await Scene(server.url, limits=limits).fetch()


async def test_a_server_that_has_recovered_is_read() -> None:
    async with serving(answer(b"", 500), b"", answer([ROW])) as server:
        scene = Scene(server.url)
        assert await scene.fetch() == [ROW]
    assert scene.time.slept


async def test_a_redirect_within_the_origin_is_followed() -> None:
    async with serving(answer(b"", 301, location="/v2/rates?x=1"), answer([ROW])) as server:
        assert await Scene(server.url).fetch() == [ROW]
    assert [request.target for request in server.requests] == ["/rates", "/v2/rates?x=1"]


@pytest.mark.parametrize("asked", ["7", "Mon, 30 Nov 2026 12:00:07 GMT"])
async def test_a_server_is_asked_again_when_it_wants_to_be(asked: str) -> None:
    async with serving(answer(b"", 429, retry_after=asked), answer([ROW])) as server:
        scene = Scene(server.url)
        assert await scene.fetch() == [ROW]
    assert 7.0 in scene.time.slept


@pytest.mark.parametrize("asked", [str(365 * 86_400), "9" * 40, "Tue, 30 Nov 2027 12:00:00 GMT"])
async def test_a_server_that_wants_a_year_is_left_alone_for_an_hour_and_no_run_waits(asked: str) -> None:
    time = Time()
    async with serving(answer(b"", 429, retry_after=asked), answer([ROW])) as server:
        scene = Scene(server.url, time=time)
        deliveries = scene.deliveries(scene.table())
        for _ in range(3):
            delivery = await deliveries.next({})
            assert delivery is not None
            with pytest.raises(ServerBusyError):
                _ = [page async for page in delivery.records()]
        await deliveries.probe()
        assert len(server.requests) == 1
        assert sum(time.slept) < 1
        time.seconds += 3601
        delivery = await deliveries.next({})
        assert delivery is not None
        assert [page async for page in delivery.records()]


@pytest.mark.parametrize("asked", ["soon", "-1", "", "Mon, 30 Nov 2026 12:00:07 -0000"])
async def test_a_retry_after_that_says_nothing_is_as_none(asked: str) -> None:
    async with serving(answer(b"", 503, retry_after=asked), answer([ROW])) as server:
        assert await Scene(server.url).fetch() == [ROW]


async def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    certificate, key = Authority("unknown", tmp_path).sign("127.0.0.1", datetime.now(UTC) + timedelta(days=1))
    (tmp_path / "server.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    async with serving(answer([ROW]), tls=context) as server:
        with pytest.raises(UnreadableDeliveryError, match=r"the certificate of https://127\.0\.0\.1:.* is not valid here"):
            await Scene(server.url).fetch()
    assert server.requests == []


async def test_an_origin_that_nothing_listens_at_pauses_the_source() -> None:
    async with serving() as server:
        pass
    scene = Scene(server.url, limits=PATIENT)
    with pytest.raises(DependencyDownError, match="can't be reached") as raised:
        await scene.fetch()
    assert not isinstance(raised.value, ServerBusyError)
    deliveries = scene.deliveries(scene.table())
    await deliveries.next({})
    with pytest.raises(DependencyDownError, match="can't be reached"):
        await deliveries.probe()
