"""Credentials come from the installation's own secrets, go to the origin that the contract names, and are renewed once."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

import pytest

from contracts.datasets import Api, Authentication
from services.ingestion.api.client import Limits
from services.ingestion.api.credentials import secrets_below
from services.ingestion.delivery import UnreadableDeliveryError
from shared.errors import DependencyDownError, ServerBusyError
from tests.fixtures.http_server import answer, serving
from tests.unit.services.ingestion.api.scene import Scene

BASIC = "Basic " + base64.b64encode(b"ann:s3cret").decode()


def api(url: str, kind: Authentication, **more: Any) -> Api:
    return Api(url, kind, "rates", requests_per_minute=60_000, **more)


@pytest.mark.parametrize(
    ("kind", "secret", "header", "value"),
    [
        (Authentication.BASIC, '{"username": "ann", "password": "s3cret"}', "authorization", BASIC),
        (Authentication.BEARER, '{"token": "s3cret"}', "authorization", "Bearer s3cret"),
        (Authentication.API_KEY, '{"key": "s3cret"}', "x-api-key", "s3cret"),
    ],
)
async def test_a_request_carries_what_the_secret_has(kind: Authentication, secret: str, header: str, value: str) -> None:
    async with serving(answer([])) as server:
        scene = Scene(server.url, secrets={"rates": secret})
        await scene.fetch(api=api(server.url, kind))
    assert server.requests[0].headers[header] == value
    assert "s3cret" not in server.requests[0].target


async def test_nothing_else_is_sent_along() -> None:
    async with serving(answer([], set_cookie="a=b", connection="keep-alive")) as server:
        await Scene(server.url).fetch()
        await Scene(server.url).fetch()
    assert {*server.requests[1].headers} == {"host", "user-agent", "accept", "accept-encoding"}


@pytest.mark.parametrize(
    "secret", ["t-1", "[]", "{}", '{"token": ""}', '{"token": 7}', '{"token": "a\\r\\nX: y"}', '{"key": "t"}', "", "null"]
)
async def test_a_secret_of_another_form_is_refused_and_not_quoted(secret: str) -> None:
    async with serving(answer([])) as server:
        with pytest.raises(UnreadableDeliveryError, match=r"secret 'rates' is not JSON of the form \{\"token\": …\}") as raised:
            await Scene(server.url, secrets={"rates": secret}).fetch(api=api(server.url, Authentication.BEARER))
    assert server.requests == []
    assert not secret or secret not in str(raised.value)


async def test_credentials_follow_no_redirect_to_another_origin() -> None:
    async with serving(answer([])) as thief, serving(answer(b"", 307, location=f"{thief.url}/rates")) as server:
        with pytest.raises(UnreadableDeliveryError, match=r"only http://127\.0\.0\.1:.*, which the contract names"):
            await Scene(server.url).fetch(api=api(server.url, Authentication.BEARER))
    assert thief.requests == []


async def test_a_secret_that_is_refused_is_read_again_since_it_may_have_been_rotated() -> None:
    async with serving(answer(b"", 401), answer([])) as server:
        scene = Scene(server.url)
        found = await scene.delivery(api=api(server.url, Authentication.BEARER))
        scene.secrets["rates"] = '{"token": "t-1"}'
        read = scene.secrets.copy

        async def rotated(name: str) -> str:
            text = read()[name]
            scene.secrets["rates"] = '{"token": "t-2"}'
            return text

        found.credentials.read = rotated
        assert [page async for page in found.records()] == []
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer t-1", "Bearer t-2"]


async def test_a_secret_that_is_refused_twice_ends_the_fetch_and_is_named() -> None:
    async with serving(answer(b"", 403)) as server:
        with pytest.raises(UnreadableDeliveryError, match="answered 403; correct secret 'rates', or its permissions there"):
            await Scene(server.url).fetch(api=api(server.url, Authentication.BEARER))
    assert len(server.requests) == 2


def token(text: str, **more: Any) -> bytes:
    return answer({"access_token": text, "token_type": "bearer", **more})


async def test_client_credentials_become_a_token_which_is_used_until_shortly_before_it_expires() -> None:
    secrets = {"rates": '{"client_id": "us er", "client_secret": "p:w"}'}
    async with serving(token("t-1", expires_in=100), token("t-2", expires_in=100)) as tokens, serving(answer([])) as server:
        scene = Scene(server.url, secrets=secrets)
        asked = api(server.url, Authentication.OAUTH2, token_url=f"{tokens.url}/token", scope="read")
        deliveries = scene.deliveries(scene.table(api=asked))
        for seconds in (0, 80, 15):
            scene.time.seconds += seconds
            delivery = await deliveries.next({})
            assert delivery is not None
            assert [page async for page in delivery.records()] == []
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer t-1", "Bearer t-1", "Bearer t-2"]
    first = tokens.requests[0]
    assert first.headers["authorization"] == "Basic " + base64.b64encode(b"us+er:p%3Aw").decode()
    assert parse_qs(first.body.decode()) == {"grant_type": ["client_credentials"], "scope": ["read"]}
    assert len(tokens.requests) == 2


async def test_an_expired_token_is_renewed_once() -> None:
    secrets = {"rates": '{"client_id": "a", "client_secret": "b"}'}
    async with serving(token("t-1"), token("t-2")) as tokens, serving(answer(b"", 401), answer([])) as server:
        asked = api(server.url, Authentication.OAUTH2, token_url=f"{tokens.url}/token")
        assert await Scene(server.url, secrets=secrets).fetch(api=asked) == []
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer t-1", "Bearer t-2"]


@pytest.mark.parametrize(
    ("sent", "error", "text"),
    [
        (answer(b"", 503), ServerBusyError, "/token was answered 503"),
        (answer({"error": "invalid_client"}, 401), UnreadableDeliveryError, "/token was answered 401; correct secret 'rates'"),
        (answer({"error": "invalid_client"}, 400), UnreadableDeliveryError, "/token was answered 400; correct secret 'rates'"),
        (answer({"error": "down"}), UnreadableDeliveryError, "/token answers without an access_token"),
        (answer([]), UnreadableDeliveryError, "/token answers without an access_token"),
        (answer(b"["), UnreadableDeliveryError, "/token answers without an access_token"),
        (token("t", expires_in="soon"), UnreadableDeliveryError, "/token answers without an access_token"),
        (token("t", expires_in=10**400), UnreadableDeliveryError, "/token answers without an access_token"),
        (token("t", more="x" * 2**20), UnreadableDeliveryError, "/token answers without an access_token"),
        (answer(b"<html>", content_type="text/html"), UnreadableDeliveryError, "/token was answered with text/html"),
    ],
)
async def test_a_token_that_is_not_given_is_explained(sent: bytes, error: type[Exception], text: str) -> None:
    secrets = {"rates": '{"client_id": "a", "client_secret": "b-secret"}'}
    async with serving(sent) as tokens, serving(answer([])) as server:
        asked = api(server.url, Authentication.OAUTH2, token_url=f"{tokens.url}/token")
        with pytest.raises(error, match=text) as raised:
            await Scene(server.url, secrets=secrets, limits=Limits(tries=2)).fetch(api=asked)
    assert server.requests == []
    assert "b-secret" not in str(raised.value)


async def test_a_token_endpoint_that_is_down_pauses_the_source() -> None:
    async with serving() as tokens:
        pass
    secrets = {"rates": '{"client_id": "a", "client_secret": "b"}'}
    async with serving(answer([])) as server:
        asked = api(server.url, Authentication.OAUTH2, token_url=f"{tokens.url}/token")
        with pytest.raises(DependencyDownError, match="can't be reached"):
            await Scene(server.url, secrets=secrets, limits=Limits(tries=2)).fetch(api=asked)


@pytest.mark.parametrize("prefix", ["", "sources/", "starlift/production/", "starlift/production/sources"])
async def test_secrets_are_read_below_the_sources_of_an_installation_only(prefix: str) -> None:
    with pytest.raises(UnreadableDeliveryError, match="or STARLIFT_API_SECRETS to a prefix"):
        await secrets_below(prefix, "eu-west-2")("rates")


@pytest.mark.parametrize("name", ["", "../warehouse", "a/../../b", "/rates", "arn:aws:secretsmanager:x", "a b", "rates/"])
async def test_no_name_of_a_secret_leads_out_of_there(name: str) -> None:
    with pytest.raises(UnreadableDeliveryError, match="is not the name of a secret below starlift/x/sources/"):
        await secrets_below("starlift/x/sources/", "eu-west-2")(name)
