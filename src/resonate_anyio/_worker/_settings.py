"""`Settings`: everything that a `Resonate` object can be configured with, one field each.

A field says all there is to say about its setting: name, type, default, environment variable, validation and
documentation. `help(Resonate)` and the table of settings in the documentation are made from the fields; tests compare
them with the signatures of `Resonate` and `Resonate.local`, which are spelled out for readers and type checkers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from os import urandom
from typing import Any, Final, NamedTuple

from attrs import Attribute, field, fields, frozen
from attrs.validators import optional
from cattrs import Converter

from .._errors import InvalidArgument
from .._ids import check_prefix
from .._observe import Observer
from .._requests._addresses import any_of
from .._time import seconds, to_ms
from .._values import ValueObject
from ..abc import Identity, Network, Store

_ABOUT: Final = "about"


class About(NamedTuple):
    """What the documentation says about a setting, in Markdown.

    Attributes:
        text: what it is for.
        environment: the variables that it is read from if the argument is not given.
        default: the default, if that is not to be shown as it is.
        unit: of the default.
    """

    text: str
    environment: str = ""
    default: str | None = None
    unit: str = ""


def _about(text: str, environment: str = "", *, default: str | None = None, unit: str = "") -> dict[str, About]:
    return {_ABOUT: About(text, environment, default, unit)}


def _group(value: str | None) -> str:
    return _address_part("group", value or "default")


def _pid(value: str | None) -> str:
    return _address_part("pid", value or urandom(8).hex())


def _address_part(name: str, value: str) -> str:
    if not isinstance(value, str) or not all(c.isascii() and (c.isalnum() or c in "._-") for c in value):
        msg = f"{name} is part of addresses and may contain A-Z a-z 0-9 . _ - only, got {value!r}"
        raise InvalidArgument(msg)
    return value


def _ttl(value: float | timedelta) -> float:
    if to_ms(value) == 0:
        msg = "ttl is the length of a lease; it must be more than 0 seconds"
        raise InvalidArgument(msg)
    return seconds(value)


def _prefix(value: str | None) -> str:
    return check_prefix("" if value is None else value)


def _at_least(least: int) -> Callable[[object, Attribute[Any], Any], None]:
    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            msg = f"{attribute.name} must be a whole number, at least {least}, got {value!r}"
            raise InvalidArgument(msg)

    return check


def _observers(value: Sequence[Observer]) -> tuple[Observer, ...]:
    for each in (found := tuple(value)):
        if isinstance(each, type) or not isinstance(each, Observer):
            msg = f"an observer is an object with a method on_event(event), got {each!r}"
            raise InvalidArgument(msg)
    return found


@frozen(kw_only=True, eq=False, repr=False)
class Settings(ValueObject):
    """See the module's docstring. Durations are held in seconds.

    Making one raises `InvalidArgument` if a setting is unusable.
    """

    url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "address of the Resonate Server",
            "`RESONATE_URL`, or `RESONATE_HOST` with `RESONATE_SCHEME` (http) and `RESONATE_PORT` (8001)",
        ),
    )
    store: Store | None = field(
        default=None,
        metadata=_about(
            "where the embedded engine (the server inside this process) keeps its records", default="`MemoryStore()`"
        ),
    )
    network: Network | None = field(
        default=None,
        metadata=_about("a `LocalNetwork` or `HttpNetwork` that several `Resonate` objects share"),
    )
    token: str | None = field(
        default=None,
        repr=False,
        metadata=_about("token for the server; never shown", "`RESONATE_TOKEN`"),
    )
    group: str = field(
        default=None,
        converter=_group,
        metadata=_about("worker group of this process", default="`default`"),
    )
    pid: str = field(
        default=None,
        converter=_pid,
        metadata=_about("name of this process in its group", default="random"),
    )
    prefix: str = field(
        default=None,
        converter=_prefix,
        metadata=_about("goes before root ids, verbatim", "`RESONATE_PREFIX`"),
    )
    converter: Converter | None = field(
        default=None,
        metadata=_about(
            "cattrs converter whose hooks say how types of your own are recorded", default="`make_converter()`"
        ),
    )
    ttl: float = field(
        default=60.0,
        converter=_ttl,
        metadata=_about(
            "time after which a lease that is not renewed lapses; at least four times as long as a request may take",
            unit="s",
        ),
    )
    grace: float = field(
        default=10.0,
        converter=seconds,
        metadata=_about("time that running leaves get to end when the worker stops", unit="s"),
    )
    threads: int = field(
        default=40,
        validator=_at_least(1),
        metadata=_about("maximum number of leaves without `async` that run at once"),
    )
    hot_for: float = field(
        default=60.0,
        converter=seconds,
        metadata=_about(
            "time for which an execution that only waits keeps its lease, plus one second for each local call that it "
            "has made; one that sleeps for longer gives its lease back at once",
            unit="s",
        ),
    )
    max_executions: int | None = field(
        default=None,
        validator=optional(_at_least(1)),
        metadata=_about(
            "maximum number of executions in progress at once; parked ones do not count. Further work waits, or is "
            "taken by another process of the group. Executions that wait for each other need room for the longest such "
            "chain, unless they can be parked",
            default="none",
        ),
    )
    hot_limit: int = field(
        default=1000,
        validator=_at_least(0),
        metadata=_about(
            "number of executions in memory with a lease above which those that have waited longest give their leases "
            "back"
        ),
    )
    parked_limit: int = field(
        default=10_000,
        validator=_at_least(0),
        metadata=_about(
            "number of executions in memory without a lease above which the oldest leave memory; they are replayed "
            "later"
        ),
    )
    one_request: bool | None = field(
        default=None,
        metadata=_about(
            "record a local step that takes less than 50 ms once, after it has run, instead of before and after. "
            "Version 0.1.0 cannot read such records: turn it on over HTTP when no worker of that version is left",
            default="on for the embedded engine, off over HTTP",
        ),
    )
    observers: tuple[Observer, ...] = field(
        default=(),
        converter=_observers,
        metadata=_about(
            "objects with a method `on_event(event)` that get an event for everything the worker does: see "
            "[observers](observers.md)",
            default="none",
        ),
    )

    @property
    def ttl_ms(self) -> int:
        """The length of a lease in milliseconds."""
        return to_ms(self.ttl)

    @property
    def execution_limit(self) -> float:
        """The maximum number of executions in progress; `math.inf` if there is none."""
        return math.inf if self.max_executions is None else self.max_executions

    @property
    def own_group(self) -> str:
        """The address of any worker of the group."""
        return any_of(self.group)

    def identity(self, *, works: bool) -> Identity:
        """Return the identity of this process from one start to the next stop.

        Each start takes leases under a new name, so those of an earlier start belong to another holder.

        Args:
            works: whether functions are registered. A process without functions is a client: it connects in a group of
                its own, because it could not run what is sent to the worker group.
        """
        group = self.group if works else f"{self.group}.clients"
        return Identity(group=group, pid=self.pid, holder=f"{self.pid}.{urandom(4).hex()}")


def about(setting: Attribute[Any]) -> About:
    """Return what the documentation says about a field of `Settings`."""
    found: About = setting.metadata[_ABOUT]
    return found


def shown_default(setting: Attribute[Any]) -> str:
    """Return the default of a field of `Settings` as the documentation shows it; empty if there is none."""
    said = about(setting)
    if said.default is not None:
        return said.default
    return "" if setting.default is None else f"{setting.default:g} {said.unit}".rstrip()


def all_settings() -> tuple[Attribute[Any], ...]:
    """Return the fields of `Settings`, in the order of the documentation."""
    return fields(Settings)
