"""Where a `Resonate` object gets its settings from: arguments, then the environment, then defaults."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from secrets import token_hex
from typing import Final, TypedDict

from attrs import field, frozen
from cattrs import Converter

from .._engine._targets import any_of
from .._engine._upkeep import Limits
from .._errors import InvalidArgument, UsageError
from .._graph import check_prefix
from .._time import seconds, to_ms
from ..abc import Identity, Network, Store
from ..networks import LocalNetwork
from ..stores import MemoryStore

DEFAULT_GROUP: Final = "default"
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


@frozen(kw_only=True)
class Settings:
    """What a `Resonate` object is made with. Durations are in seconds."""

    group: str
    pid: str
    ttl_ms: int
    grace: float
    threads: int
    limits: Limits
    prefix: str
    network: Network
    token: str | None = field(default=None, repr=False)

    def identity(self) -> Identity:
        """Who this process is, from one start to the next stop. Leases of an earlier start are another holder's."""
        return Identity(group=self.group, pid=self.pid, holder=f"{self.pid}.{token_hex(4)}")

    @property
    def own_group(self) -> str:
        """The address of any worker of the group."""
        return any_of(self.group)


def resolve_network(
    url: str | None, store: Store | None, network: Network | None, environ: Mapping[str, str]
) -> Network:
    """The network that the arguments, else the environment, ask for; else an embedded engine in memory.

    Raises:
        UsageError: they contradict each other, or ask for a server.
    """
    given = [name for name, value in (("url", url), ("store", store), ("network", network)) if value is not None]
    if len(given) > 1:
        msg = f"{' and '.join(given)} were given together; each of them says where promises are kept: give one"
        raise UsageError(msg)
    if network is not None:
        return network
    if store is not None:
        return LocalNetwork(store)
    remote, source = (url, "url=") if url else _url_of(environ)
    if remote is not None:
        instead = "leave it out" if url else f"unset {source}"
        msg = (
            f"{source} asks for the Resonate Server at {remote!r}, and this version of resonate-anyio has no HTTP "
            f"network yet; {instead}, or use Resonate.local() or Resonate.local('file.db')"
        )
        raise UsageError(msg)
    return LocalNetwork(MemoryStore())


def _url_of(environ: Mapping[str, str]) -> tuple[str | None, str]:
    if environ.get("RESONATE_URL"):
        return environ["RESONATE_URL"], "RESONATE_URL"
    if environ.get("RESONATE_HOST"):
        port = environ.get("RESONATE_PORT") or DEFAULT_PORT
        return f"http://{environ['RESONATE_HOST']}:{port}", "RESONATE_HOST"
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
    token: str | None,
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
    _check_number("threads", "how many synchronous functions may run at once", threads, least=1)
    _check_number("hot_limit", "how many executions that wait are kept leased", hot_limit, least=0)
    _check_number("parked_limit", "how many parked executions are kept in memory", parked_limit, least=0)
    return Settings(
        group=_address_part("group", group or DEFAULT_GROUP),
        pid=_address_part("pid", pid or token_hex(8)),
        ttl_ms=to_ms(ttl),
        grace=seconds(grace),
        threads=threads,
        limits=Limits(hot_for=seconds(hot_for), hot_limit=hot_limit, parked_limit=parked_limit),
        prefix=check_prefix(environ.get("RESONATE_PREFIX", "") if prefix is None else prefix),
        network=network,
        token=token or environ.get("RESONATE_TOKEN") or None,
    )


def _check_number(name: str, what: str, value: int, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        msg = f"{name} is {what}, at least {least}, not {value!r}"
        raise InvalidArgument(msg)


def _address_part(what: str, value: str) -> str:
    if not isinstance(value, str) or not all(c.isascii() and (c.isalnum() or c in "._-") for c in value):
        msg = f"{what} is part of addresses and may contain A-Z a-z 0-9 . _ - only, not {value!r}"
        raise InvalidArgument(msg)
    return value
