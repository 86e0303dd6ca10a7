"""Where a connection comes from, and how many may come from one place."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable
from typing import Final

from antiphon.errors import SettingsError

__all__ = ["Addresses", "Proxies"]

WINDOW: Final = 60.0
"""Seconds over which new connections are counted."""
_IPV6_PREFIX: Final = 64
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """The proxies whose `X-Forwarded-For` is believed.

    Args:
        trusted: Their addresses or networks, such as `10.0.0.0/8`.

    Raises:
        SettingsError: One of them is neither.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = [_network(text) for text in trusted]

    def client(self, peer: str, forwarded: str) -> str:
        """Where a request comes from.

        Args:
            peer: The address at the other end of the socket; empty for a Unix socket, whose other
                end is always a proxy.
            forwarded: What `X-Forwarded-For` says. Each proxy adds whom it was asked by at its
                end, so it is believed from there, as far as trusted proxies reach.
        """
        if peer and not self._trusted:
            return peer
        found = peer
        for said in reversed(forwarded.split(",")):
            if found and not self._is_trusted(found):
                return found
            address = _address(said)
            if not address:
                return found
            found = address
        return found

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = _plain(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


class Addresses:
    """How many connections come from each address; of IPv6, from each /64, which is one customer.

    Args:
        max_connections: Open ones at once; 0 for no limit.
        max_per_minute: New ones in a minute; 0 for no limit.
    """

    def __init__(self, max_connections: int, max_per_minute: int) -> None:
        self._max_connections = max_connections
        self._max_per_minute = max_per_minute
        self._open: dict[str, int] = {}
        self._recent: dict[str, int] = {}
        self._window = 0.0

    def refusal(self, address: str) -> str | None:
        """Why a connection from here is not taken; None if it is. It counts as one that came."""
        if not self._max_connections and not self._max_per_minute:
            return None
        place = _place(address)
        if not place:
            return None
        if self._max_per_minute:
            now = time.monotonic()
            if now - self._window >= WINDOW:
                self._window = now
                self._recent.clear()  # nobody is remembered for longer than that
            count = self._recent[place] = self._recent.get(place, 0) + 1
            if count > self._max_per_minute:
                return f"More than {self._max_per_minute} connections a minute from your address"
        if 0 < self._max_connections <= self._open.get(place, 0):
            return f"More than {self._max_connections} connections from your address"
        return None

    def opened(self, address: str) -> None:
        """A connection from here is open."""
        if self._max_connections:
            place = _place(address)
            self._open[place] = self._open.get(place, 0) + 1

    def closed(self, address: str) -> None:
        """One that was opened is gone."""
        if self._max_connections:
            place = _place(address)
            self._open[place] -= 1
            if not self._open[place]:
                del self._open[place]


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise SettingsError(
            f"{text!r} is no address of a proxy: give one like 10.0.0.5, or a network, 10.0.0.0/8."
        ) from None


def _address(said: str) -> str:
    """One entry of X-Forwarded-For as an address without a port; empty if it is none."""
    text = said.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(_plain(ipaddress.ip_address(text)))
    except ValueError:
        return ""


def _place(address: str) -> str:
    """What is counted as one place."""
    try:
        parsed = _plain(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return ""
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), _IPV6_PREFIX), strict=False))


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address also where a socket for both kinds shows it as IPv6."""
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
