"""The options of an HTTP network, checked where they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .._errors import InvalidArgument

_PRINTABLE: Final = frozenset(map(chr, range(0x20, 0x7F))) | {"\t"}
_PROXIES: Final = ("http", "https", "socks5", "socks5h")


def check_url(url: str) -> str:
    """Return the address of a server without a slash at its end.

    Raises:
        InvalidArgument: it is not the address of a server, or contains more than that.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        # The text may contain a password.
        shown = "" if isinstance(url, str) and "@" in url else f", not {url!r}"
        msg = f"url is the address of a Resonate Server, such as http://localhost:8001{shown}"
        raise InvalidArgument(msg)
    if parts.username is not None or parts.password is not None:
        msg = "url must not hold a user or a password; give token= (or headers=, e.g. for basic authentication)"
        raise InvalidArgument(msg)
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        msg = f"url says where the server is and nothing else, e.g. {parts.scheme}://{parts.netloc}, not {url!r}"
        raise InvalidArgument(msg)
    return f"{parts.scheme}://{parts.netloc}"


def _split(url: object) -> SplitResult | None:
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading the port checks it
    except ValueError:
        return None
    return parts


def check_proxy(proxy: str | None) -> str | None:
    """Return the address of a proxy.

    Raises:
        InvalidArgument: it is not the address of a proxy.
    """
    if proxy is None:
        return None

    parts = _split(proxy)
    if parts is None or parts.scheme not in _PROXIES or not parts.hostname:
        # The text may contain a password.
        msg = f"proxy is an address that starts with one of {', '.join(_PROXIES)}, such as http://localhost:8080"
        raise InvalidArgument(msg)
    return proxy


def is_plain(url: str, headers: Mapping[str, str], proxies: Mapping[str, str]) -> bool:
    """Return whether requests need a TCP connection and nothing else: neither TLS nor a proxy.

    The answer is yes only if httpx certainly uses no proxy. It matches the entries of `NO_PROXY` in several ways; here
    an entry counts if it is the host itself, or `*`.

    Args:
        url: the address of the server.
        headers: the headers to send with every request. `Connection` may say that connections are not kept.
        proxies: the proxies of the environment by scheme, and under "no" the hosts without one.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or any(name.lower() == "connection" for name in headers):
        return False
    if not (proxies.get("http") or proxies.get("all")):
        return True

    exceptions = {host.strip().lower() for host in proxies.get("no", "").split(",")}
    return "*" in exceptions or parts.hostname in exceptions


def check_headers(headers: Mapping[str, str] | None, *, with_token: bool) -> dict[str, str]:
    """Return the headers to send with every request.

    Raises:
        InvalidArgument: a header cannot be sent, or is the one that the token is sent in.
    """
    checked = dict(headers or {})
    for name, value in checked.items():
        if not (isinstance(name, str) and isinstance(value, str) and name and set(name + value) <= _PRINTABLE):
            # The value must not be shown.
            msg = f"headers are printable ASCII texts by name; the one of {name!r} is not"
            raise InvalidArgument(msg)
        if with_token and name.lower() == "authorization":
            msg = "token= is sent as the Authorization header; give one of the two, not both"
            raise InvalidArgument(msg)
    return checked


def check_timeout(name: str, value: float) -> float:
    """Return a number of seconds.

    Raises:
        InvalidArgument: it is not a positive, finite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        msg = f"{name} is a number of seconds, more than 0, not {value!r}"
        raise InvalidArgument(msg)
    return float(value)


def check_size(name: str, value: int) -> int:
    """Return a number of bytes.

    Raises:
        InvalidArgument: it is not a positive integer.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{name} is a number of bytes, at least 1, not {value!r}"
        raise InvalidArgument(msg)
    return value
