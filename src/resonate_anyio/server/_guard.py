"""`Guard`: refuses requests that a web page has made a browser send.

A browser allows any page to send requests to programs on the same machine and in the same network. The page cannot read
the answers, but the requests take effect: a page could create a promise that runs a registered function, or receive the
messages for a worker. A page whose host name points to this server (DNS rebinding) could read the answers too.

Three headers, which pages cannot change, say where a request of a browser comes from: `Host`, `Origin` and
`Sec-Fetch-Site`. The SDKs and programs such as curl do not send the last two, and their `Host` is the name that their
user has given. Other `Sec-Fetch` headers are ignored, because Node's `fetch` sends `Sec-Fetch-Mode`. The content type
is ignored too: the Resonate Server ignores it, `curl -d` sends that of a form, and every browser sends `Origin` with a
POST.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Self, TypeAlias
from urllib.parse import urlsplit

from attrs import frozen

from .._errors import InvalidArgument
from ._asgi import TEXT, Receive, Reply, Scope, Send, headers, read_body, target

Place: TypeAlias = tuple[str, str, int | None]
"""An origin: scheme, host and port."""

ANY_HOST: Final = "*"

_AUTHORITY: Final = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[^\s\[\]:/?#@\\]+))(?::(?P<port>[0-9]{0,5}))?")
_ORIGIN: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]+)")
_PORTS: Final = {"http": 80, "https": 443}
_SCHEMES: Final = {"ws": "http", "wss": "https"}

_HERE: Final = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site` for requests of the user, and of pages of this server."""


@frozen
class Guard:
    """Decides which requests are accepted. It is made by `Guard.of`."""

    _hosts: frozenset[str]
    _origins: frozenset[Place]

    @classmethod
    def of(cls, hosts: Iterable[str], origins: Iterable[str]) -> Self:
        """Return a guard that accepts requests to these hosts, and requests of pages of these origins.

        Args:
            hosts: names or addresses, without a port; `*` is any. Loopback addresses, `localhost`, and the address at
                which a connection has arrived need not be named.
            origins: origins such as `https://example.org`.

        Raises:
            InvalidArgument: a host or an origin has another form.
        """
        return cls(frozenset(map(_checked_host, hosts)), frozenset(map(_checked_origin, origins)))

    def refusal(self, scope: Scope) -> Reply | None:
        """Return the answer to a request that is refused, or None if the request is accepted."""
        for authority in _authorities(scope):
            if not self._is_host(authority, scope):
                return _refused_host(authority)

        origins = headers(scope, b"origin")
        for origin in origins:
            if not (self._is_named(origin) or _is_own(origin, scope)):
                return _refused_origin(f"a page of the origin {_shown(origin)}")

        named = bool(origins) and all(map(self._is_named, origins))
        sites = headers(scope, b"sec-fetch-site")
        if not named and not _HERE.issuperset(sites):
            return _refused_origin(f"a page of another origin (Sec-Fetch-Site: {_shown(', '.join(sites))})")

        return None

    def stream_refusal(self, scope: Scope) -> Reply | None:
        """Return the answer to a refused request for a stream of messages, or None if the request is accepted.

        Browsers send `Sec-Fetch-Site` only by HTTPS and to loopback addresses, and they send no `Origin` with a GET
        that is not a CORS request. Then only `User-Agent` shows that a page has sent the request. The page would
        receive messages that are meant for a worker.
        """
        browsers = [agent for agent in headers(scope, b"user-agent") if agent.startswith("Mozilla/")]
        if not browsers or headers(scope, b"origin") or headers(scope, b"sec-fetch-site"):
            return None

        return _refused_origin("a browser that does not say which page it is for")

    def foreign_origin(self, scope: Scope) -> str | None:
        """Return the origin of the page that has sent an accepted request, unless it is the origin of this server."""
        origins = [origin for origin in headers(scope, b"origin") if not _is_own(origin, scope)]
        return origins[0] if origins else None

    def _is_host(self, authority: str, scope: Scope) -> bool:
        parsed = _parse(authority)
        if parsed is None:
            return False

        host, _ = parsed
        return ANY_HOST in self._hosts or host in self._hosts or is_loopback(host) or host == _arrived_at(scope)

    def _is_named(self, origin: str) -> bool:
        return _place(origin) in self._origins


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(url: str | None) -> tuple[str, ...]:
    """Return the host of a URL in the form that `Guard.of` takes, or an empty tuple."""
    try:
        host = urlsplit(url or "").hostname
    except ValueError:
        return ()

    return (_without_zone(host),) if host else ()


async def refuse(reply: Reply, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a reply to an HTTP request or to a request for a WebSocket, without regard to its body."""
    if scope["type"] == "websocket":
        await _refuse_upgrade(reply, scope, send)
        return

    try:
        # A client that is answered while it sends its body may never see the answer.
        await read_body(receive, 0)
    except ConnectionResetError:
        return

    await reply.send(send)


async def _refuse_upgrade(reply: Reply, scope: Scope, send: Send) -> None:
    # If the client sends more before it is answered, Hypercorn answers it, and another answer is an error.
    with suppress(Exception):
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await reply.send(send, kind="websocket.http.response")
        else:
            await send({"type": "websocket.close"})


def _refused_host(authority: str) -> Reply:
    parsed = _parse(authority)
    host = "HOST" if parsed is None else parsed[0]
    return _forbidden(
        f"{_shown(authority)} is not a name of this server. If your programs use it, start the server with "
        f"--allow-host {_shown(host)} (make_app: allowed_hosts=[...]). Other names are refused because a web page can "
        f"make a name of its own point to this server."
    )


def _refused_origin(source: str) -> Reply:
    return _forbidden(
        f"{source} may not use this server. To allow your own page, start the server with --allow-origin and its "
        f"origin, such as https://example.org (make_app: allowed_origins=[...])."
    )


def _forbidden(reason: str) -> Reply:
    return Reply(403, f"Forbidden: {reason}\n".encode(), TEXT, {"x-content-type-options": "nosniff"})


def _shown(text: str) -> str:
    # The text comes from the client and is sent back to it, so it is cut and written in ASCII.
    return ascii(text if len(text) <= 100 else f"{text[:100]}...").strip("'\"") or "(none)"


def _checked_host(text: str) -> str:
    parsed = _parse(text) or _parse(f"[{text}]")
    if parsed is None or parsed[1] is not None or (ANY_HOST in text and text != ANY_HOST):
        msg = f"{text!r} is not a host; give a name or an address without a port, such as example.org, or * for any"
        raise InvalidArgument(msg)

    return parsed[0]


def _checked_origin(text: str) -> Place:
    place = _place(text)
    if place is None:
        msg = f"{text!r} is not an origin; give scheme, host and port, such as https://example.org or http://h:3000"
        raise InvalidArgument(msg)

    return place


def _authorities(scope: Scope) -> list[str]:
    """Return every host that the request names. A request without one is not from a browser."""
    authority, _ = target(scope)
    return headers(scope, b"host") if authority is None else [authority, *headers(scope, b"host")]


def _arrived_at(scope: Scope) -> str | None:
    """Return the address of this machine at which the connection has arrived.

    It is safe to accept as a host. A page can make a name point to this server, but a request whose host is this
    address was sent by a page of this server, or has the `Origin` of another one.
    """
    address, _ = scope.get("server") or ("", None)
    try:
        return str(_unmapped(ipaddress.ip_address(_without_zone(address))))
    except ValueError:
        return None


def _is_own(origin: str, scope: Scope) -> bool:
    scheme = scope.get("scheme", "http")
    own = [_place(f"{_SCHEMES.get(scheme, scheme)}://{authority}") for authority in _authorities(scope)]
    return bool(own) and all(place is not None and place == _place(origin) for place in own)


def _place(origin: str) -> Place | None:
    match = _ORIGIN.fullmatch(origin.lower())
    parsed = None if match is None else _parse(match["authority"])
    if match is None or parsed is None:
        return None

    host, port = parsed
    return match["scheme"], host, _PORTS.get(match["scheme"]) if port is None else port


def _parse(authority: str) -> tuple[str, int | None] | None:
    """Return host and port in their normal form; None if the text is not an authority."""
    match = _AUTHORITY.fullmatch(authority.lower())
    if match is None:
        return None

    port = int(match["port"]) if match["port"] else None
    host = match["ipv6"] or match["name"].removesuffix(".")
    try:
        host = str(_unmapped(ipaddress.ip_address(host)))
    except ValueError:
        if match["ipv6"]:
            return None

    return (host, port) if host else None


def _unmapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return getattr(address, "ipv4_mapped", None) or address


def _without_zone(address: str) -> str:
    # A link-local address is followed by the network interface: fe80::1%eth0.
    return address.partition("%")[0]
