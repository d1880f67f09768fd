"""Where a `Resonate` object gets its settings from: arguments, then the environment, then defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from secrets import token_hex
from typing import Final, TypedDict

from attrs import frozen
from cattrs import Converter

from .._errors import InvalidArgument, UsageError
from .._ids import check_prefix
from .._requests._addresses import any_of
from .._time import seconds, to_ms
from .._worker._residency import Limits
from ..abc import Identity, Network, Store
from ..networks import LocalNetwork
from ..stores import MemoryStore

DEFAULT_GROUP: Final = "default"
DEFAULT_SCHEME: Final = "http"
DEFAULT_PORT: Final = "8001"
DEFAULT_TTL: Final = 60.0
DEFAULT_GRACE: Final = 10.0
DEFAULT_THREADS: Final = 40
DEFAULT_HOT_FOR: Final = 60.0
DEFAULT_HOT_LIMIT: Final = 1000
DEFAULT_PARKED_LIMIT: Final = 10_000


class LocalSettings(TypedDict, total=False):
    """The settings that `Resonate.local` takes besides its path; see `Resonate`."""

    group: str | None
    pid: str | None
    ttl: float | timedelta
    prefix: str | None
    converter: Converter | None
    grace: float | timedelta
    threads: int
    hot_for: float | timedelta
    hot_limit: int
    parked_limit: int
    max_executions: int | None


@frozen(kw_only=True)
class Settings:
    """What a `Resonate` object is made with. Durations are in seconds."""

    group: str
    pid: str
    ttl_ms: int
    grace: float
    threads: int
    limits: Limits
    max_executions: float
    prefix: str
    network: Network

    def identity(self, *, works: bool) -> Identity:
        """Who this process is, from one start to the next stop. Leases of an earlier start are another holder's.

        Args:
            works: whether it has functions to run. Whoever has none receives nothing that is meant for the group, which
                would be late and not run.
        """
        group = self.group if works else f"{self.group}.clients"
        return Identity(group=group, pid=self.pid, holder=f"{self.pid}.{token_hex(4)}")

    @property
    def own_group(self) -> str:
        """The address of any worker of the group."""
        return any_of(self.group)


def resolve_network(
    url: str | None, store: Store | None, network: Network | None, token: str | None, environ: Mapping[str, str]
) -> Network:
    """The network that the arguments, else the environment, ask for; else an embedded engine in memory.

    Raises:
        UsageError: they contradict each other.
        InvalidArgument: the address or the token of a server is unusable.
    """
    given = [name for name, value in (("url", url), ("store", store), ("network", network)) if value is not None]
    if len(given) > 1:
        msg = f"{' and '.join(given)} were given together; each of them says where promises are kept: give one"
        raise UsageError(msg)
    if network is None and store is None:
        address, source = (url, "") if url else _url_of(environ)
        if address is not None:
            return _http_network(address, source, token or environ.get("RESONATE_TOKEN") or None)
    if token is not None:
        raise UsageError(_idle_token(network))
    return LocalNetwork(MemoryStore() if store is None else store) if network is None else network


def _http_network(url: str, source: str, token: str | None) -> Network:
    # The HTTP library is imported by those who have a server.
    from ..networks import HttpNetwork  # noqa: PLC0415

    try:
        return HttpNetwork(url, token=token)
    except InvalidArgument as error:
        msg = f"{source}{error}"
        raise InvalidArgument(msg) from None


def _idle_token(network: Network | None) -> str:
    if network is not None:
        return "token is sent to a server by the network that leads to it: give it to HttpNetwork(url, token=...)"
    return (
        "token is sent to a server, and an embedded engine asks for none: give url= or set RESONATE_URL if there is a "
        "server, else leave the token out"
    )


def _url_of(environ: Mapping[str, str]) -> tuple[str | None, str]:
    """The address that the environment gives, and what to say before an error about it."""
    if environ.get("RESONATE_URL"):
        return environ["RESONATE_URL"], "from RESONATE_URL: "
    if environ.get("RESONATE_HOST"):
        scheme, port = environ.get("RESONATE_SCHEME") or DEFAULT_SCHEME, environ.get("RESONATE_PORT") or DEFAULT_PORT
        return f"{scheme}://{environ['RESONATE_HOST']}:{port}", "from RESONATE_SCHEME, _HOST and _PORT: "
    return None, ""


def resolve(  # noqa: PLR0913 - one for each setting, all by name
    *,
    network: Network,
    group: str | None,
    pid: str | None,
    ttl: float | timedelta,
    grace: float | timedelta,
    threads: int,
    hot_for: float | timedelta,
    hot_limit: int,
    parked_limit: int,
    max_executions: int | None,
    prefix: str | None,
    environ: Mapping[str, str],
) -> Settings:
    """All settings, checked.

    Raises:
        InvalidArgument: one is unusable.
    """
    if to_ms(ttl) == 0:
        msg = "ttl is the length of a lease; it must be more than 0 seconds"
        raise InvalidArgument(msg)
    _check_ttl(to_ms(ttl), network)
    _check_number("threads", "how many synchronous functions may run at once", threads, least=1)
    _check_number("hot_limit", "how many executions that wait are kept leased", hot_limit, least=0)
    _check_number("parked_limit", "how many parked executions are kept in memory", parked_limit, least=0)
    if max_executions is not None:
        _check_number("max_executions", "how many executions may be under way at once", max_executions, least=1)
    return Settings(
        group=_address_part("group", group or DEFAULT_GROUP),
        pid=_address_part("pid", pid or token_hex(8)),
        ttl_ms=to_ms(ttl),
        grace=seconds(grace),
        threads=threads,
        limits=Limits(hot_for=seconds(hot_for), hot_limit=hot_limit, parked_limit=parked_limit),
        max_executions=math.inf if max_executions is None else max_executions,
        prefix=check_prefix(environ.get("RESONATE_PREFIX", "") if prefix is None else prefix),
        network=network,
    )


def _check_ttl(ttl_ms: int, network: Network) -> None:
    # A request is begun only as long as the lease outlives it, and a lease has to be renewed several times over.
    least_ms = to_ms(4 * network.request_timeout)
    if ttl_ms < least_ms:
        msg = (
            f"ttl is {ttl_ms / 1000:g} s, but a request may take {network.request_timeout:g} s, and a lease has to "
            f"last at least four times as long: give ttl={least_ms / 1000:g} or more, or an HttpNetwork with a shorter "
            f"request_timeout"
        )
        raise InvalidArgument(msg)


def _check_number(name: str, what: str, value: int, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        msg = f"{name} is {what}, at least {least}, not {value!r}"
        raise InvalidArgument(msg)


def _address_part(what: str, value: str) -> str:
    if not isinstance(value, str) or not all(c.isascii() and (c.isalnum() or c in "._-") for c in value):
        msg = f"{what} is part of addresses and may contain A-Z a-z 0-9 . _ - only, not {value!r}"
        raise InvalidArgument(msg)
    return value
