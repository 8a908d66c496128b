"""Which addresses an API may have: public ones, and those that a setting allows.

A contract is text that a person writes, and a name can lead anywhere: to the metadata of the machine, to a database beside it.
So each address is checked where its socket is made: the address that was checked is the one that is connected to, whatever the
DNS answers next, and however the address was written.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # https://www.iana.org/assignments/ipv6-address-space
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address
SETTING = "STARLIFT_API_ALLOW"


class RefusedAddressError(OSError):
    """An address that no request may go to. An OSError, so that a name's other addresses are tried."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is allowed although it is not public, or speaks plain HTTP."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)  # whatever their addresses are

    @classmethod
    def parse(cls, text: str) -> Allowed:
        """From a list, separated by commas: networks (10.1.0.0/16), addresses, names of hosts. Raises: ValueError."""
        networks, hosts = list[Network](), set[str]()
        for entry in (part.strip() for part in text.split(",") if part.strip()):
            if entry.replace(".", "").replace("-", "").isalnum() and not entry[-1].isdigit():
                hosts.add(entry.lower())
                continue
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                raise ValueError(
                    f"'{entry}' is not a network, an address or the name of a host; write it as 10.1.0.0/16, 10.1.2.3 or "
                    "rates.internal"
                ) from None
        return cls(tuple(networks), frozenset(hosts))

    def permits(self, address: Address, *, plain: bool) -> bool:
        """Whether a request may go to `address`; `plain`: without encryption."""
        address = getattr(address, "ipv4_mapped", None) or address
        if any(address in network for network in self.networks):
            return True
        return not plain and _is_public(address)

    def socket_factory(self, origin: URL) -> Any:
        """What makes the sockets of requests to `origin`. The function raises RefusedAddressError."""

        def make(info: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, target = info
            address = ipaddress.ip_address(str(target[0]).partition("%")[0])
            if origin.host not in self.hosts and not self.permits(address, plain=origin.scheme == "http"):
                what = "is asked without encryption; use https" if _is_public(address) else "has no public address; use another"
                raise RefusedAddressError(f"{origin.host} {what}, or add it to {SETTING}")
            return socket.socket(family, kind, protocol)

        return make


def _is_public(address: Address) -> bool:
    """Whether anyone may have this address. One that contains an IPv4 address is judged by that."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        return _is_public(inner) if inner else address in _GLOBAL_UNICAST and address.is_global
    return address.is_global and not address.is_multicast and not address.is_reserved
