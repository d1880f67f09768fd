"""The world around the workflows: jobs that go on by themselves, and people who settle and cancel things.

All of it outlives the processes. What a person wants to do waits until a process lives, and is tried again when that
one dies over it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeAlias

import anyio
from anyio import Event, create_memory_object_stream, create_task_group
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

from resonate_anyio import NotRunning, Resonate
from resonate_anyio._protocol import Promise

from ..engine.harness import Unreachable
from .graphs import CANCELLED, ROOT, Broken, Leaf, Pause, Plan, Settlement, seconds
from .ledger import CODEC, SOON_MS, Ledger

_Act: TypeAlias = Callable[[Resonate], Awaitable[object]]
_Intention: TypeAlias = tuple[float, _Act]

_QUICK: Final = 2.0
"""Seconds that a step takes that has no work outside."""

_AGAIN: Final = 5.0
"""Seconds after which a person tries again."""


@define(eq=False)
class Outside:
    """The world around the workflows (see the module's docstring).

    Attributes:
        faults: what durable functions did that they must not do, in words.
    """

    plan: Plan
    ledger: Ledger
    faults: list[str] = field(factory=list, init=False)
    _ends: dict[str, float] = field(factory=dict, init=False)
    _failures: dict[str, int] = field(factory=dict, init=False)
    _intend: MemoryObjectSendStream[_Intention] = field(init=False)
    _intended: MemoryObjectReceiveStream[_Intention] = field(init=False)
    _witnessed: dict[str, object] = field(factory=dict, init=False)
    _living: Resonate | None = field(default=None, init=False)
    _born: Event = field(factory=Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._intend, self._intended = create_memory_object_stream[_Intention](math.inf)

    # Jobs

    async def work(self, id: str, plan: Leaf) -> str:
        """Do the work of the step `id`: begin it, or join what was begun before a crash."""
        if self.ledger.finished(id):
            self.faults.append(f"{id} was executed again although it had finished")
        if plan.work is None:
            await anyio.sleep(_QUICK)
        else:
            end = self._ends.setdefault(id, anyio.current_time() + seconds(plan.work))
            await anyio.sleep_until(end)
        self._check_time(id)
        return self._result(id, plan)

    async def pause(self, place: str, plan: Pause) -> None:
        """Wait in the body of a workflow, as for a job elsewhere, which goes on when nobody waits for it."""
        if plan.length is None:
            await anyio.sleep(_QUICK)
            return
        end = self._ends.setdefault(place, anyio.current_time() + seconds(plan.length))
        await anyio.sleep_until(end)

    def _check_time(self, id: str) -> None:
        """Whoever's time is up is stopped, and does not come here."""
        now, promise = self.ledger.clock(), self.ledger.promises[id]
        ended = [at for at in (promise.settled_at, self.ledger.settled_above(id)) if at is not None]
        if ended and now - min(ended) > SOON_MS:
            self.faults.append(f"{id} ran on for {(now - min(ended)) / 1000} s after its end was on record")

    def _result(self, id: str, plan: Leaf) -> str:
        failures = self._failures.get(id, 0)
        if plan.failures is None or failures < plan.failures:
            self._failures[id] = failures + 1
            msg = f"{id} was to fail"
            raise Broken(msg)
        return f"result of {id}"

    def witness(self, place: str, what: object) -> None:
        """A workflow was given this at this place; a replay has to be given the same."""
        seen = self._witnessed.setdefault(place, what)
        if seen != what:
            self.faults.append(f"{place} was given {seen} once and {what} on a replay")

    # People

    @contextmanager
    def living(self, resonate: Resonate) -> Iterator[None]:
        """Let people act through `resonate` while the block lasts."""
        self._living = resonate
        self._born.set()
        try:
            yield
        finally:
            self._living = None
            self._born = Event()

    def notice(self, promise: Promise) -> None:
        """A promise was created: if somebody is to settle or cancel it, that begins to run now."""
        name, _, exponent = promise.id.rpartition(".")[2].rpartition("-")
        if promise.id == ROOT and self.plan.cancelled is not None:
            self._later(self.plan.cancelled, partial(_cancel, promise.id))
        elif name == CANCELLED:
            self._later(int(exponent), partial(_cancel, promise.id))
        elif promise.tags.get("resonate:external") == "true":
            script = CODEC.decode(promise.param)
            if script["settled"] is not None:
                self._later(script["settled"], partial(_settle, promise.id, script["state"]))

    def _later(self, exponent: int, act: _Act) -> None:
        self._intend.send_nowait((anyio.current_time() + seconds(exponent), act))

    async def act(self) -> None:
        """Do what people do, until cancelled. What they do has to start from here: this is no durable code."""
        async with self._intend, self._intended, create_task_group() as tasks:
            async for instant, act in self._intended:
                tasks.start_soon(self._act, instant, act)

    async def _act(self, instant: float, act: _Act) -> None:
        await anyio.sleep_until(instant)
        while True:
            while self._living is None:
                await self._born.wait()
            try:
                await act(self._living)
            except (Unreachable, NotRunning):
                await anyio.sleep(_AGAIN)
            else:
                return


async def _cancel(id: str, resonate: Resonate) -> None:
    await resonate.promises.cancel(id)


async def _settle(id: str, state: Settlement, resonate: Resonate) -> None:
    value: object = Broken(f"{id} was rejected") if state == "rejected" else f"value of {id}"
    await resonate.promises.settle(id, state, value)
