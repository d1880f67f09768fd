"""How a `Resonate` object gets its `Settings`: arguments first, then the environment, then defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from textwrap import indent, wrap
from typing import Any, Final, TypedDict, TypeVar

from attrs import evolve
from cattrs import Converter

from .._errors import InvalidArgument, UsageError
from .._observe import Observer
from .._time import to_ms
from .._worker._settings import Settings, about, all_settings, shown_default
from ..abc import Network, Store

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT_SCHEME: Final = "http"
_DEFAULT_PORT: Final = "8001"
_WIDTH: Final = 100


class LocalSettings(TypedDict, total=False):
    """The settings that `Resonate.local` takes besides its path; see `Resonate`."""

    group: str | None
    pid: str | None
    prefix: str | None
    converter: Converter | None
    ttl: float | timedelta
    grace: float | timedelta
    threads: int
    hot_for: float | timedelta
    max_executions: int | None
    hot_limit: int
    parked_limit: int
    one_request: bool | None
    observers: Sequence[Observer]


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Settings, Network]:
    """Return all settings, checked, and the network that they ask for.

    Raises:
        UsageError: they contradict each other.
        InvalidArgument: one is unusable.
    """
    given: dict[str, Any] = {**arguments}
    if given.get("prefix") is None:
        given["prefix"] = environ.get("RESONATE_PREFIX")
    settings = Settings(**given)
    network = _network(settings, environ)
    _check_ttl(settings.ttl_ms, network)
    # The network has the token now. What is not held cannot be shown.
    return evolve(settings, token=None), network


def _network(settings: Settings, environ: Mapping[str, str]) -> Network:
    """Return the network that the arguments ask for, else the environment, else an embedded engine in memory."""
    places = {"url": settings.url, "store": settings.store, "network": settings.network}
    given = [name for name, place in places.items() if place is not None]
    if len(given) > 1:
        msg = f"{' and '.join(given)} were given together; each of them says where promises are kept: give one"
        raise UsageError(msg)
    network, store, token = settings.network, settings.store, settings.token
    if network is None and store is None:
        url, source = (settings.url, "") if settings.url else _url_of(environ)
        if url is not None:
            return _http_network(url, source, token or environ.get("RESONATE_TOKEN") or None)
    if token is not None:
        raise UsageError(_unused_token(network))
    return local_network(store) if network is None else network


def local_network(store: Store | None) -> Network:
    """Return the network of an embedded engine, whose state is kept in memory if there is no store."""
    # Programs with a server need not wait for the import of the engine.
    from ..networks import LocalNetwork  # noqa: PLC0415
    from ..stores import MemoryStore  # noqa: PLC0415

    return LocalNetwork(MemoryStore() if store is None else store)


def _http_network(url: str, source: str, token: str | None) -> Network:
    # Programs without a server need not wait for the import of the HTTP library.
    from ..networks import HttpNetwork  # noqa: PLC0415

    try:
        return HttpNetwork(url, token=token)
    except InvalidArgument as error:
        msg = f"{source}{error}"
        raise InvalidArgument(msg) from None


def _unused_token(network: Network | None) -> str:
    if network is not None:
        return "token is sent to a server by the network that leads to it: give it to HttpNetwork(url, token=...)"
    return (
        "token is sent to a server, and an embedded engine asks for none: give url= or set RESONATE_URL if there is a "
        "server, else leave the token out"
    )


def _url_of(environ: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the address that the environment gives, and the start of an error message about it."""
    if environ.get("RESONATE_URL"):
        return environ["RESONATE_URL"], "from RESONATE_URL: "
    if host := environ.get("RESONATE_HOST"):
        scheme = environ.get("RESONATE_SCHEME") or _DEFAULT_SCHEME
        port = environ.get("RESONATE_PORT") or _DEFAULT_PORT
        return f"{scheme}://{host}:{port}", "from RESONATE_SCHEME, _HOST and _PORT: "
    return None, ""


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


def documented(init: F) -> F:
    """Add the documentation of every setting to the docstring of `Resonate.__init__`."""
    if init.__doc__ is not None:
        before, raises, after = init.__doc__.partition("        Raises:")
        init.__doc__ = f"{before}        Args:\n{indent(_arguments(), ' ' * 12)}\n\n{raises}{after}"
    return init


def _arguments() -> str:
    lines: list[str] = []
    for setting in all_settings():
        environment, default = about(setting).environment, shown_default(setting)
        text = f"{setting.name}: {about(setting).text}."
        text += f" Default: {default}." if default else ""
        text += f" Environment: {environment}." if environment else ""
        lines += wrap(text, _WIDTH, subsequent_indent="    ")
    return "\n".join(lines)
