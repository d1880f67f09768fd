"""`Execution`: a root promise whose task this worker holds, with everything that runs locally below it.

An execution is hot (its coroutines are in memory and its task is leased) or not here at all. It is put away by
*dropping* it: the reason is written down, its scope is cancelled, every durable wait is woken and every durable call
from then on raises the backend's own cancellation. Nothing is sent for it any more and what its code still returns or
raises is ignored, so that dropping looks like a crash to everybody else: whoever acquires the task next replays it.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from anyio import CancelScope, Event, move_on_after
from attrs import define, field

from .._errors import NonDeterminismError, ResonateError
from .._graph import SEPARATOR, History, origin_of
from .._protocol import (
    Promise,
    PromiseCreate,
    PromiseGet,
    PromiseSettle,
    PromiseState,
    Request,
    Response,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    Value,
)
from ._cancellation import raise_cancelled
from ._reasons import OUTSIDE, Reason
from ._requests import refusal
from ._targets import any_of, nowhere

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from .._codec import Codec
    from ._context import Context
    from ._frame import Frame
    from ._leaf import Threads
    from ._nodes import Node
    from ._waiting import Listener
    from ._worker import Worker

_ANSWERS = frozenset({200, 300, 404, 409})
_REFUSALS = frozenset({400, 422})  # these speak of the request; all others, of a platform that cannot take it now

logger = logging.getLogger("resonate_anyio")

_TIMER_HOLDER = "timer"  # the pid that holds the tasks of timers and external promises (distribution 3)
_TIMER_LEASE_MARGIN_MS = 3_600_000
_LARGE_BRANCH = 10_000  # 3.5 MB and a third of a second of a real server, at each recovery
_FENCED_BRANCH_LIMIT = 100  # above it, a fenced create costs more bytes than the orphan that it may prevent


class Drop(Enum):
    """Why an execution was put away."""

    UNLOADED = "unloaded"
    """The worker stops; the task is released and runs on elsewhere, or here after the next start."""
    SETTLED = "settled"
    """Its promise was settled from outside."""
    LOST = "lost"
    """Another worker holds the task."""
    HALTED = "halted"
    """A replay asked for something else than what is recorded."""
    CRASHED = "crashed"
    """The engine or the program failed in a way that is no outcome."""


class Deadline(Protocol):
    """Something that ends at an instant."""

    @property
    def instant(self) -> int:
        """The instant, in milliseconds of the server's time."""

    def map_deadline(self) -> None:
        """Map the instant to the loop's clock."""


@define(eq=False, kw_only=True)
class Execution:
    """One root promise and the local part of the call graph below it (see the module's docstring).

    Attributes:
        id: the id of the root; also of its task, and the branch of everything local.
        version: the version that the task was acquired at.
        history: what was recorded before this run.
        local_records: how many promises share the branch.
        dropped: why it was put away, or None.
        error: what went wrong, if that is why.
        ended: set once no code of it runs any more and, if it was halted, that is on record.
        pinned: how many outcomes of unfinished frames a replay could not give back at once, since they came from a
            scope that is not on record: while there are any, it is not unloaded for economy.
    """

    worker: Worker
    id: str
    version: int
    origin: str
    history: History
    root: Frame = field(init=False)
    dropped: Drop | None = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)
    ended: Event = field(factory=Event, init=False)
    local_records: int = 0
    pinned: int = 0
    _deadlines: set[Deadline] = field(factory=set, init=False)
    _frames: set[Frame] = field(factory=set, init=False)
    _scope: CancelScope = field(factory=lambda: CancelScope(shield=True), init=False)
    _running_leaves: int = field(default=0, init=False)
    _waits: dict[object, Event] = field(factory=dict, init=False)
    _subscriptions: dict[str, Listener] = field(factory=dict, init=False)

    async def run(self) -> None:
        """Run the root function to its end, or until the execution is dropped."""
        try:
            with self._scope:
                await self.root.run()
        finally:
            for id, listener in self._subscriptions.items():
                self.worker.waiting.unsubscribe(id, listener)

    # What frames need from around them

    @property
    def codec(self) -> Codec:
        return self.worker.codec

    @property
    def threads(self) -> Threads:
        return self.worker.threads

    @property
    def busy(self) -> bool:
        """Whether a leaf of it is running."""
        return self._running_leaves > 0

    @property
    def own_group(self) -> str:
        """The address of any worker of the own group."""
        return any_of(self.worker.identity.group)

    @property
    def nowhere(self) -> str:
        """An address that nobody listens at."""
        return nowhere(self.worker.identity.group)

    def now(self) -> int:
        return self.worker.connection.now()

    def random(self) -> float:
        return self.worker.random()

    def context_for(self, frame: Frame) -> Context:
        return self.worker.make_context(frame)

    @contextmanager
    def leaf_running(self) -> Iterator[None]:
        """Counts a running leaf: while one runs, shutdown gives grace."""
        self._running_leaves += 1
        try:
            yield
        finally:
            self._running_leaves -= 1
            self.worker.leaf_ended()

    @contextmanager
    def running(self, frame: Frame) -> Iterator[None]:
        """Know of a running frame, and keep its deadline."""
        self._frames.add(frame)
        try:
            with self.deadline(frame):
                yield
        finally:
            self._frames.remove(frame)

    @contextmanager
    def deadline(self, deadline: Deadline) -> Iterator[None]:
        """Keep a deadline where the server has it, although the loop's clock may part from it."""
        self._deadlines.add(deadline)
        deadline.map_deadline()
        try:
            yield
        finally:
            self._deadlines.remove(deadline)

    def map_deadlines(self) -> None:
        """Map all deadlines to the loop's clock anew."""
        for deadline in self._deadlines:
            deadline.map_deadline()

    def interrupted(self) -> bool:
        """Whether a cancellation that was just caught means nothing: the execution is being put away."""
        if self.worker.torn_down:
            self.drop(Drop.UNLOADED)
        return self.dropped is not None

    def end_call(self, id: str) -> None:
        """Cancel the local call `id` if it is running here: its promise was settled from outside."""
        for frame in self._frames:
            if frame.id == id and frame is not self.root:
                frame.request_cancel(Reason(OUTSIDE))

    # Putting away

    def drop(self, reason: Drop, error: BaseException | None = None) -> None:
        """Put the execution away. The first reason stands."""
        if self.dropped is not None or self.ended.is_set():
            return
        self.dropped = reason
        self.error = error
        self._scope.cancel()
        for event in self._waits.values():
            event.set()

    async def halt(self, error: NonDeterminismError) -> NoReturn:
        """Stop here and let nobody run it until it is resumed; the promise stays pending."""
        self.drop(Drop.HALTED, error)
        await raise_cancelled()

    async def check(self) -> None:
        """Raise the backend's cancellation if the execution was dropped."""
        if self.dropped is not None:
            await raise_cancelled()

    async def gate(self) -> None:
        """Let a durable call start, unless the execution is being put away: then it never does."""
        await self.check()
        if self.worker.draining:
            await self.wait(Event())

    async def wait(self, event: Event) -> None:
        """Wait for `event`; a shield of the user's does not hold this when the execution is dropped."""
        await self.check()
        ticket = object()
        self._waits[ticket] = event
        try:
            await event.wait()
        finally:
            del self._waits[ticket]
        await self.check()

    # Requests

    async def request(self, request: Request, *, settling: bool = False, taken: int | None = None) -> Response:
        """Send one request on behalf of this execution.

        A platform failure is no outcome of anything: it drops the execution.

        Args:
            request: what is asked.
            settling: it records what has happened already, and is not held up when the worker stops.
            taken: one more status that the caller understands.

        Raises:
            RequestError: the request was refused as it is, and would be on a replay.
        """
        await (self.check() if settling else self.gate())
        try:
            response = await self.worker.connection.request(request)
        except Exception as exc:  # noqa: BLE001 - whatever a network raises, it is no outcome of a call
            self.drop(Drop.CRASHED, exc)
            await raise_cancelled()
        await self.check()
        if response.status not in _ANSWERS and response.status != taken:
            error = refusal(request, response)
            if not settling and response.status in _REFUSALS:
                raise error
            self.drop(Drop.CRASHED, error)
            await raise_cancelled()
        return response

    def recorded(self, id: str) -> Promise | None:
        """The record of `id` from before this run, if there is one."""
        return self.history.take(id)

    async def create_local(self, request: PromiseCreate) -> Promise:
        """Record a call that runs in this execution."""
        self.local_records += 1
        if self.local_records == _LARGE_BRANCH:
            logger.warning(
                "execution.large id=%s local_records=%d: each recovery reads them all; give parts of the work to "
                "workflows of their own with ctx.rpc",
                self.id,
                self.local_records,
            )
        response = await self.request(request)
        assert response.promise is not None
        return response.promise

    async def create_remote(self, request: PromiseCreate) -> Promise:
        """Record a call that runs elsewhere, but only while this worker holds the task."""
        if self.local_records > _FENCED_BRANCH_LIMIT:
            return await self.create_local(request)
        fence = TaskFence(id=self.id, version=self.version, action=request, action_id=request.id)
        response = await self.request(fence)
        if response.status in {404, 409}:
            await self._lose()
        assert response.action is not None
        assert response.action.promise is not None
        return response.action.promise

    async def create_timer(self, request: PromiseCreate) -> Promise:
        """Record a promise whose deadline must fire although no one may be there to look.

        Servers arm the deadline of a promise that has a task. The task is born acquired by nobody in particular, for
        longer than the deadline, so that no message is ever sent for it (distribution 3).
        """
        ttl = max(request.timeout_at - self.now(), 0) + _TIMER_LEASE_MARGIN_MS
        response = await self.request(TaskCreate(pid=_TIMER_HOLDER, ttl=ttl, action=request), taken=422)
        if response.status in {409, 422}:
            response = await self.request(PromiseGet(id=request.id))
        assert response.promise is not None
        return response.promise

    async def fresh(self, record: Promise) -> Promise:
        """`record` as it is now: the rows of a history may be past their deadline and still say pending."""
        if not record.expired(self.now()):
            return record
        # Its outcome is history, which a cancelled scope does not hide.
        with CancelScope(shield=True):
            confirmed = await self.confirm_timeout(record)
        return confirmed  # noqa: RET504 - to a type checker, a scope may swallow the return

    async def confirm_timeout(self, record: Promise) -> Promise:
        """Ask for a promise whose deadline has passed here until it has passed there as well."""
        while True:
            response = await self.request(PromiseGet(id=record.id), settling=True)
            assert response.promise is not None
            if not response.promise.pending:
                return response.promise
            with move_on_after(max(record.timeout_at - self.now(), 1) / 1000):
                await self.wait(Event())

    async def settle(self, id: str, state: PromiseState, value: Value) -> Promise:
        """Record the end of a local call, and give back what is on record then."""
        response = await self.request(PromiseSettle(id=id, state=state, value=value), settling=True)
        assert response.promise is not None
        return response.promise

    async def fulfill(self, state: PromiseState, value: Value) -> Promise:
        """Record the end of the root, and give back what is on record then."""
        action = PromiseSettle(id=self.id, state=state, value=value)
        response = await self.request(TaskFulfill(id=self.id, version=self.version, action=action), settling=True)
        if response.status == 200:
            assert response.promise is not None
            return response.promise
        response = await self.request(PromiseGet(id=self.id), settling=True)
        if response.promise is None or response.promise.pending:
            await self._lose()
        assert response.promise is not None
        return response.promise

    async def listen(self, node: Node) -> None:
        """Hear of the settling of a promise that is not run here."""
        self.worker.waiting.subscribe(node.id, node.settle)
        self._subscriptions[node.id] = node.settle
        try:
            record = await self.worker.register_listener(node.id, self)
        except BaseException:
            self.unlisten(node)
            raise
        if not record.pending:
            node.settle(record)

    def unlisten(self, node: Node) -> None:
        """Hear of it no more."""
        if self._subscriptions.pop(node.id, None) is not None:
            self.worker.waiting.unsubscribe(node.id, node.settle)

    async def end_elsewhere(self, id: str) -> None:
        """End what still runs or waits below a remote call that was cancelled."""
        try:
            with CancelScope(shield=True):
                await self.worker.end(id)
        except ResonateError as exc:
            self.drop(Drop.CRASHED, exc)
        await self.check()

    async def _lose(self) -> NoReturn:
        self.drop(Drop.LOST)
        await raise_cancelled()


def lineage(record: Promise) -> str:
    """The origin of a root that was handed to this worker: from its tag; else, from the shape of its id."""
    origin = record.tags.get("resonate:origin") or ""
    return origin if origin and SEPARATOR not in origin else origin_of(record.id)
