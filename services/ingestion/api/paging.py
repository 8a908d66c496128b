"""From one page of an answer to the request of the next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import SEEK_END
from typing import Any, BinaryIO

import aiohttp
from yarl import URL

from contracts.datasets import Paging, Request
from services.ingestion.api.client import Answer, Client
from services.ingestion.delivery import UnreadableDeliveryError
from shared.codecs.codec import MIB

BODY_BYTES_MAXIMUM = 16 * MIB  # of a page in which the next one is named: all of it is in memory then, ten times as large
_TEXT_MAXIMUM = 4_000  # characters of a cursor or a URL: more is more than a server takes in the first line of a request


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for one page."""

    url: URL
    parameters: Mapping[str, str]

    def sent(self, method: str) -> tuple[URL, dict[str, Any]]:
        """The URL and the body that are sent."""
        if method == "GET":
            return self.url.extend_query(self.parameters), {}
        return self.url, {"json": dict(self.parameters)}


def first_page(request: Request, since: str | None) -> Asked:
    """The request that begins a fetch."""
    pages, parameters = request.pages, dict(request.parameters)
    since = request.first_since if since is None else since
    if request.since_parameter is not None and since is not None:
        parameters[request.since_parameter] = since
    if pages.size_parameter is not None:
        parameters[pages.size_parameter] = str(pages.size)
    if pages.parameter is not None and pages.kind is not Paging.CURSOR:
        parameters[pages.parameter] = "0" if pages.kind is Paging.OFFSET else str(pages.first)
    return Asked(URL(request.api.url.rstrip("/") + request.path), parameters)


def next_page(request: Request, asked: Asked, answer: Answer, count: int, client: Client) -> Asked | None:
    """The request of the page after one with `count` records; None after the last page.

    An offset and a page number end at a page without records, and not at one with fewer than were asked for: many servers send
    fewer than they are asked for, and a snapshot that ends early would mark rows as deleted.
    Raises: UnreadableDeliveryError if it would go to another origin.
    """
    pages, name = request.pages, request.pages.parameter or ""
    match pages.kind:
        case Paging.NONE:
            return None
        case Paging.OFFSET | Paging.PAGE:
            step = count if pages.kind is Paging.OFFSET else 1
            number = int(asked.parameters[name]) + step
            return replace(asked, parameters={**asked.parameters, name: str(number)}) if count else None
        case Paging.CURSOR:
            cursor = text_at(answer.body, pages.at or "")
            if cursor is None or (not count and cursor == asked.parameters.get(name)):
                return None  # some servers repeat the last cursor for ever
            return replace(asked, parameters={**asked.parameters, name: cursor})
        case Paging.LINK:
            link = _next_link(answer.response)
        case _:  # the next URL in the body
            link = text_at(answer.body, pages.at or "")
    # It has every parameter; those of a POST are in its body and stay.
    parameters = {} if request.method == "GET" else asked.parameters
    return None if link is None else Asked(client.next_url(answer.response.url, link), parameters)


def text_at(body: BinaryIO, at: str) -> str | None:
    """The text or the number at some keys of a JSON body; None if there is none, or an empty one."""
    if body.seek(0, SEEK_END) > BODY_BYTES_MAXIMUM:
        raise UnreadableDeliveryError(
            f"a body of more than {BODY_BYTES_MAXIMUM // MIB} MiB is not searched for '{at}'; ask for smaller pages"
        )
    body.seek(0)
    try:
        found = json.load(body)
    except (ValueError, RecursionError):
        raise UnreadableDeliveryError(
            f"the body has no '{at}', since it is not JSON; correct `at` or the paging in the contract"
        ) from None
    for key in at.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if found is None or found is False or found == "":
        return None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise UnreadableDeliveryError(f"at '{at}' the body has neither a text nor a whole number; correct `at` in the contract")
    if not (text := str(found)).isprintable() or len(text) > _TEXT_MAXIMUM:
        raise UnreadableDeliveryError(f"the text at '{at}' in the body can't be sent back; ask whoever runs the server")
    return text


def _next_link(response: aiohttp.ClientResponse) -> str | None:
    """The target of rel=next in the header Link (RFC 8288)."""
    try:
        link = response.links.get("next")
    except ValueError:
        raise UnreadableDeliveryError(
            f"the header Link of the answer to {response.url.path} has an invalid URL; use another paging in the contract"
        ) from None
    return None if link is None else str(link["url"])
