"""Lives: the runs of one execution, one for each acquisition of its task, and the marks that tell how they ended.

A life ends in order if its task is suspended or released: a wake promise `~wake-{version}` or a mark
`~stopped-{version}` is on record then. A life at the next version that finds neither follows a crash or a lost lease,
and records that with a mark `~life-{version}` (docs/semantics.md 7.6). Versions of tasks alone do not tell, since
suspended and released tasks get a new version as well.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final, Protocol

from attrs import frozen

from .._errors import DecodeError, ResonateError
from .._ids import below
from .._protocol import Promise, PromiseCreate, PromiseGet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .._codec import Codec
    from .._protocol import Request, Response, Value
    from .._workflow._host import Facilities
    from ..abc import Connection

logger = logging.getLogger("resonate_anyio")

_WAKE: Final = "~wake-"
_STOPPED: Final = "~stopped-"
_LIFE: Final = "~life-"
_VERSION: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


def wake_id(start: str, version: int, number: int) -> str:
    """Return the id of a wake promise.

    Args:
        start: the beginning of all ids below the root.
        version: the version at which the task is suspended.
        number: how many were made for the version. Each has an id of its own, since their deadlines may differ.
    """
    return f"{start}{_WAKE}{version}" + (f"-{number}" if number > 1 else "")


@frozen(eq=False, repr=False)
class Marks:
    """What is on record of the earlier lives of an execution.

    Attributes:
        wakes: the ids of the pending wake promises.
        in_order: the versions at which its task was suspended or released.
        crashes: the instants at which lives began that follow a crash, in milliseconds of the server's time.
    """

    wakes: tuple[str, ...]
    in_order: frozenset[int]
    crashes: tuple[int, ...]

    def crashed_before(self, version: int) -> bool:
        """Return whether the life at `version` follows a crash, as far as these marks tell."""
        return version > 1 and version - 1 not in self.in_order


def split_marks(start: str, records: Iterable[Promise], codec: Codec) -> tuple[Marks, list[Promise]]:
    """Return the marks among the records below a root, and the records of its calls.

    Args:
        start: the beginning of all ids below the root.
        records: the records.
        codec: the codec of recorded values.
    """
    wakes: list[str] = []
    in_order: set[int] = set()
    crashes: list[int] = []
    calls: list[Promise] = []
    mark, length = f"{start}~", len(start)
    for record in records:
        kind = "" if not record.id.startswith(mark) else record.id[length:]
        if kind.startswith((_WAKE, _STOPPED)):
            version = _VERSION.match(kind.partition("-")[2])
            in_order.update(() if version is None else (int(version[0]),))
            if kind.startswith(_WAKE) and record.pending:
                wakes.append(record.id)
        elif kind.startswith(_LIFE):
            crashes.append(_instant_of(record, codec))
        else:
            calls.append(record)
    return Marks(tuple(wakes), frozenset(in_order), tuple(sorted(crashes))), calls


def _instant_of(record: Promise, codec: Codec) -> int:
    try:
        return int(codec.decode(record.param)["at"])
    except (DecodeError, KeyError, TypeError, ValueError):
        return record.created_at


async def was_parked(send: Callable[[Request], Awaitable[Response]], start: str, version: int) -> bool:
    """Return whether the task was suspended at `version`: for a worker that may not search, so that no scan tells."""
    return (await send(PromiseGet(id=wake_id(start, version, 1)))).status == 200


def crash_mark(root: Promise, start: str, version: int, codec: Codec, now: int) -> PromiseCreate:
    """Return the request that records that the life at `version` follows a crash.

    Args:
        root: the promise of the root function.
        start: the beginning of all ids below it.
        version: the version of the task.
        codec: the codec of recorded values.
        now: the instant, in milliseconds of the server's time.
    """
    return _mark(root, f"{start}{_LIFE}{version}", codec.encode({"at": now}))


class Recorder(Protocol):
    """The part of a worker that records how a life ends. `Services` has it."""

    @property
    def connection(self) -> Connection: ...
    @property
    def facilities(self) -> Facilities: ...
    @property
    def separator(self) -> str: ...


async def mark_stopped(services: Recorder, root: Promise, version: int) -> None:
    """Record that the task is about to be released in order. If that fails, the next life takes this for a crash."""
    start = below(root.id, services.separator)
    content = services.facilities.codec.encode({"at": services.connection.now()})
    try:
        await services.connection.request(_mark(root, f"{start}{_STOPPED}{version}", content))
    except ResonateError as exc:
        logger.info("execution.stop_not_marked id=%s reason=%r", root.id, exc)


def _mark(root: Promise, id: str, content: Value) -> PromiseCreate:
    tags = {
        "resonate:timer": "true",
        "resonate:scope": "local",
        "resonate:branch": root.id,
        "resonate:origin": root.tags.get("resonate:origin") or root.id,
        "resonate:parent": root.id,
    }
    # Its deadline is in the past by the server's clock, so it is born resolved.
    return PromiseCreate(id=id, timeout_at=root.created_at, param=content, tags=tags)
