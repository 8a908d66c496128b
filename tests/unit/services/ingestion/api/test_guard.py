"""No request reaches an address that is not public, unless a setting allows it, however the address is written or found."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from contracts.datasets import Api
from services.ingestion.api.guard import Allowed
from services.ingestion.delivery import UnreadableDeliveryError
from tests.fixtures.http_server import answer, serving
from tests.unit.services.ingestion.api.scene import Scene

NOT_PUBLIC = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.0",  # noqa: S104 - nothing is bound
    "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


class Names(AbstractResolver):
    """Resolves every name to the given addresses: the first time to the first, and so on."""

    def __init__(self, *addresses: list[str]) -> None:
        self.addresses, self.asked = addresses, list[str]()

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - of the port's signature
    ) -> list[ResolveResult]:
        found = self.addresses[min(len(self.asked), len(self.addresses) - 1)]
        self.asked.append(host)
        return [
            ResolveResult(
                hostname=host, host=one, port=port, proto=0, flags=0, family=socket.AF_INET6 if ":" in one else socket.AF_INET
            )
            for one in found
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not Allowed().permits(ipaddress.ip_address(address), plain=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_permitted_if_it_encrypts(address: str) -> None:
    assert Allowed().permits(ipaddress.ip_address(address), plain=False)
    assert not Allowed().permits(ipaddress.ip_address(address), plain=True)


def test_what_is_allowed_may_be_private_and_plain() -> None:
    allowed = Allowed.parse(" 10.1.0.0/16, 192.168.1.7 ,rates.internal,fd00::/8,")
    assert allowed.hosts == {"rates.internal"}
    for address in ("10.1.2.3", "192.168.1.7", "fd00::7", "::ffff:10.1.2.3"):
        assert allowed.permits(ipaddress.ip_address(address), plain=True)
    for address in ("10.2.0.1", "192.168.1.8", "fe80::1"):
        assert not allowed.permits(ipaddress.ip_address(address), plain=True)


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "300.1.1.1", "a b", "*", "https://x", "10.0.0", "-"])
def test_an_entry_that_is_none_of_them_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a network, an address or the name of a host"):
        Allowed.parse(entry)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "127.1", "localhost", "[::ffff:7f00:1]", "169.254.169.254", "0"]
)
async def test_no_spelling_of_an_address_gets_past_it(host: str) -> None:
    async with serving(answer([])) as server:
        port = server.url.rpartition(":")[2]
        for scheme in ("http", "https"):
            with pytest.raises(UnreadableDeliveryError, match=r"has no public address|is not a URL that can be asked"):
                await Scene("", allow="").fetch(api=Api(f"{scheme}://{host}:{port}"))
    assert server.requests == []


async def test_a_name_that_leads_to_a_private_address_is_refused_each_time_it_is_resolved() -> None:
    """DNS rebinding: the first answer is harmless, and the second is not. What is judged is what is connected to."""
    async with serving(answer([])) as server:
        port = server.url.rpartition(":")[2]
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        scene = Scene("", allow="127.0.0.1", resolver=names)
        assert await scene.fetch(api=Api(f"http://rates.example:{port}")) == []
        with pytest.raises(UnreadableDeliveryError, match=r"rates\.example has no public address"):
            await scene.fetch(api=Api(f"http://rates.example:{port}"))
    assert names.asked == ["rates.example", "rates.example"]
    assert len(server.requests) == 1


async def test_of_several_addresses_only_those_that_are_permitted_are_used() -> None:
    async with serving(answer([])) as server:
        port = server.url.rpartition(":")[2]
        names = Names(["10.0.0.1", "169.254.169.254", "127.0.0.1"])
        assert await Scene("", allow="127.0.0.1", resolver=names).fetch(api=Api(f"http://rates.example:{port}")) == []
    assert len(server.requests) == 1


async def test_a_host_that_is_allowed_by_name_may_have_any_address() -> None:
    async with serving(answer([])) as server:
        port = server.url.rpartition(":")[2]
        scene = Scene("", allow="rates.internal", resolver=Names(["127.0.0.1"]))
        assert await scene.fetch(api=Api(f"http://rates.internal:{port}")) == []
        with pytest.raises(UnreadableDeliveryError, match=r"other\.internal has no public address"):
            await scene.fetch(api=Api(f"http://other.internal:{port}"))


async def test_plain_http_to_a_public_address_is_refused() -> None:
    scene = Scene("", resolver=Names(["8.8.8.8"]))
    with pytest.raises(UnreadableDeliveryError, match=r"rates\.example is asked without encryption; use https, or add it"):
        await scene.fetch(api=Api("http://rates.example"))


async def test_a_proxy_resolves_names_itself_and_is_asked_for_encrypted_origins_only() -> None:
    async with serving(answer(b"", 403)) as proxy:
        scene = Scene("", allow="", proxy=proxy.url, resolver=Names(["8.8.8.8"]))
        with pytest.raises(UnreadableDeliveryError, match=r"rates\.example is asked without encryption"):
            await scene.fetch(api=Api("http://rates.example"))
        with pytest.raises(UnreadableDeliveryError, match=r"the proxy refuses https://rates\.example with status 403"):
            await scene.fetch(api=Api("https://rates.example"))
    assert [(request.method, request.target) for request in proxy.requests] == [("CONNECT", "rates.example:443")]
