"""`Scenario`: one workflow of the corpus, what it needs around it, and what has to come of it in every case."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import anyio
from attrs import define, field, frozen

from resonate_anyio import Resonate
from resonate_anyio._codec import Codec
from resonate_anyio._protocol import Promise, PromiseState

from .states import State

F = TypeVar("F", bound=Callable[..., Any])

Ending: TypeAlias = tuple[str, object]
"""How a promise ended: its state, and its value or error as JSON."""

ROOT: Final = "w"
"""The id that every workflow of the corpus runs under."""

_CODEC: Final = Codec()


class World(Protocol):
    """Where a workflow of the corpus runs."""

    def age(self) -> float:
        """Seconds since its beginning."""
        ...

    async def has(self, id: str) -> bool:
        """Whether there is a promise with this id."""
        ...

    def named(self, id: str) -> str:
        """The id that stands here for one of the corpus."""
        ...


@define(eq=False)
class Outside:
    """The world around the workflow: other programs and people.

    What it does has to be such that a second time changes nothing, since a script begins anew with each process.

    It has a program that runs no functions, to settle and cancel with.
    """

    _resonate: Resonate
    _world: World

    async def at(self, seconds: float) -> None:
        """Wait until so many seconds after the beginning of the world."""
        await anyio.sleep(max(0, seconds - self._world.age()))

    async def exists(self, id: str) -> None:
        """Wait until somebody has made the promise `id`."""
        while not await self._world.has(self._world.named(id)):  # noqa: ASYNC110 - nobody would set an event
            await anyio.sleep(0.1)

    async def resolve(self, id: str, value: object) -> None:
        """Give the answer that is waited for."""
        await self._resonate.promises.resolve(self._world.named(id), value)

    async def reject(self, id: str, error: Exception) -> None:
        """Refuse it."""
        await self._resonate.promises.reject(self._world.named(id), error)

    async def withdraw(self, id: str) -> None:
        """Take the question back."""
        await self._resonate.promises.cancel(self._world.named(id))

    async def cancel(self, id: str) -> None:
        """Cancel an execution or a call."""
        await self._resonate.cancel(self._world.named(id))


Script: TypeAlias = Callable[[Outside], Coroutine[Any, Any, None]]


@frozen(kw_only=True)
class Scenario:
    """One workflow of the corpus.

    Attributes:
        workflow: the root function.
        args: its arguments.
        ending: how the root has to end, crash or no crash.
        functions: others that are registered beside it.
        others: functions of further worker groups on the same network, by group.
        outside: what happens outside of it.
        timeout: the deadline of the root, in seconds.
        varies: patterns of ids whose outcome a crash may change, or which may not exist after one.
    """

    workflow: Callable[..., Any]
    args: tuple[Any, ...]
    ending: Ending
    functions: tuple[Callable[..., Any], ...] = ()
    others: Mapping[str, tuple[Callable[..., Any], ...]] = field(factory=dict)
    outside: Script | None = None
    timeout: float | None = None
    varies: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.workflow.__name__

    def ends_as(self, ending: Ending) -> bool:
        """Whether this is how the root has to end. Texts of errors may be given as patterns."""
        (state, value), (expected, pattern) = ending, self.ending
        if state == expected == "rejected":
            return fnmatchcase(str(value), str(pattern))
        return (state, value) == (expected, pattern)

    def endings(self, state: State) -> dict[str, list[str]]:
        """How everything ended whose end is the same in every case, by id.

        The engine's own promises (`~`) are left out. Tasks of plain groups are numbered as they come, so their numbers
        say nothing; and whose doing it was that something was cancelled may be found out in another way by a replay.
        """
        endings: dict[str, list[str]] = {}
        for promise in state.promises.values():
            if not self.may_vary(promise):
                endings.setdefault(without_lanes(promise.id), []).append(without_lanes(_told(promise)))
        return {id: sorted(texts) for id, texts in endings.items()}

    def may_vary(self, promise: Promise) -> bool:
        """Whether a crash may change how it ends."""
        return "~" in promise.id or any(fnmatchcase(promise.id, pattern) for pattern in self.varies)


CORPUS: Final[dict[str, Scenario]] = {}


def scenario(*args: Any, returns: Any = None, fails: str | None = None, **more: Any) -> Callable[[F], F]:
    """Put a workflow into the corpus.

    Args:
        args: what it is called with.
        returns: what it has to return, as JSON.
        fails: the error that it has to fail with instead (`Type: message`), or a state: `timedout`, `canceled`.
        more: see `Scenario`.
    """
    ending = ("resolved", returns) if fails is None else _failure(fails)

    def add(workflow: F) -> F:
        assert workflow.__name__ not in CORPUS
        CORPUS[workflow.__name__] = Scenario(workflow=workflow, args=args, ending=ending, **more)
        return workflow

    return add


def _failure(text: str) -> Ending:
    return (f"rejected_{text}", None) if text in {"timedout", "canceled"} else ("rejected", text)


def _told(promise: Promise) -> str:
    if promise.state is PromiseState.CANCELED:
        return promise.state.value
    return f"{promise.state.value} {json.dumps(content_of(promise), sort_keys=True)}"


def without_lanes(text: str) -> str:
    """A text without the numbers that tasks of plain groups get as they come."""
    return re.sub(r"(-\d+tp)\d+", r"\1", text)


def content_of(promise: Promise) -> Any:
    """The value or error of a promise as JSON, without what a crash may change and nobody sees.

    That is the traceback of an error, and whether a call had begun when it was cancelled.
    """
    value = _CODEC.decode(promise.value)
    if not isinstance(value, dict):
        return value
    return {key: member for key, member in value.items() if key not in {"stack", "started"}}


def ending_of(promise: Promise) -> Ending:
    """How a promise ended, in the short form in which the corpus says it."""
    state, content = promise.state.value, content_of(promise)
    if state == "rejected":
        return state, f"{content['name']}: {content['message']}"
    return state, content if state == "resolved" else None
