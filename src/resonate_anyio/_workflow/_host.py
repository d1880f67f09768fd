"""The port of a frame: the interface of the execution that the frame belongs to."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from anyio import Event
from attrs import field, frozen

from .._concurrency._cancellation import raise_cancelled
from .._errors import NonDeterminismError
from .._protocol import Promise, PromiseCreate, PromiseState, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._codec import Codec
    from .._concurrency._backoff import Backoff
    from .._concurrency._threads import Threads
    from .._functions._dependencies import Dependencies
    from .._functions._function import Function
    from .._history import History
    from .._ids import Naming
    from .._observe import Observers
    from ._presence import Presence, Young


class Drop(Enum):
    """The reason why an execution was dropped."""

    UNLOADED = "unloaded"
    """It was evicted, because the worker stops or has too many in memory. It is replayed later, here or elsewhere."""
    SETTLED = "settled"
    """Its promise was settled from outside."""
    LOST = "lost"
    """Another worker holds the task, or may hold it."""
    HALTED = "halted"
    """A replay made another call than the recorded one."""
    CRASHED = "crashed"
    """The worker or the server failed in a way that is not an outcome of the function."""
    INTERRUPTED = "interrupted"
    """KeyboardInterrupt, SystemExit or the like passed through its code: the program ends."""


@frozen(kw_only=True, eq=False, repr=False)
class Facilities:
    """The objects and values that all executions of one worker share, and that do not change while it runs.

    Attributes:
        codec: the codec of recorded values.
        threads: the worker threads for synchronous leaves.
        dependencies: the objects that functions ask for by type.
        random: a function that returns a number in [0, 1), for jitter.
        backoff: a function that returns a new backoff for requests that fail.
        make_context: a function that returns the first argument of a workflow.
        find_function: a function that returns the registered function of a callable, or None.
        own_group: the address of any worker of the worker's own group.
        nowhere: an address without a worker. A promise needs a target for its deadline to fire.
        observers: get events.
        short_steps: the leaves that are not on record yet.
        one_request: whether a short step is recorded with one request.
        pid: the name of this process, as records show it.
    """

    codec: Codec
    threads: Threads
    dependencies: Dependencies
    random: Callable[[], float]
    backoff: Callable[[], Backoff]
    make_context: Callable[[Any], object]
    find_function: Callable[[Callable[..., Any]], Function | None]
    own_group: str = field()
    nowhere: str = field()
    observers: Observers
    short_steps: Young
    one_request: bool
    pid: str


class Journal(Protocol):
    """The writer and reader of an execution's records."""

    async def create_local(self, request: PromiseCreate, *, again: bool = False, begun: bool = False) -> Promise:
        """Record a call that runs in this execution, and return its record.

        Args:
            request: the request.
            again: whether the call is on record already. Its present record is returned.
            begun: whether the call has begun already.
        """
        ...

    async def create_remote(self, request: PromiseCreate) -> Promise:
        """Record a call that runs elsewhere, if this worker still holds the task, and return its record."""
        ...

    async def create_timer(self, request: PromiseCreate) -> Promise:
        """Record a promise whose deadline must fire even if no worker runs then, and return its record."""
        ...

    async def fresh(self, record: Promise) -> Promise:
        """Return the present state of `record`, which may say pending although its deadline has passed."""
        ...

    async def confirm_timeout(self, record: Promise) -> Promise:
        """Return the record of a promise whose deadline has passed here, once it has passed at the server as well."""
        ...

    async def settle(self, id: str, state: PromiseState, value: Value, *, finished: bool = False) -> Promise:
        """Record the end of a local call, and return its record."""
        ...

    async def settle_late(
        self, id: str, state: PromiseState, value: Value, *, unrecorded: PromiseCreate | None = None
    ) -> None:
        """Record the outcome of a leaf although its execution has been dropped."""
        ...

    async def fulfill(self, state: PromiseState, value: Value, *, finished: bool = False) -> Promise:
        """Record the end of the root, and return its record."""
        ...

    async def look_up(self, id: str) -> Promise | None:
        """Return the record of `id`, or None."""
        ...

    async def cancel_below(self, id: str) -> None:
        """Cancel all pending calls below a remote call that was cancelled."""
        ...

    def settled_here(self, record: Promise) -> None:
        """Note that this execution has settled a promise whose function may run in this process."""
        ...


class Awaited(Protocol):
    """A promise that is waited for and is settled elsewhere.

    Attributes:
        id: the id of the promise.
        pending: whether it has no outcome yet, as far as this worker knows.
        record: its record, as this worker knows it.
        due: for a sleep, the instant that was asked for, in milliseconds of the server's time.
    """

    @property
    def id(self) -> str: ...
    @property
    def pending(self) -> bool: ...
    @property
    def record(self) -> Promise: ...
    @property
    def due(self) -> int | None: ...

    def settle(self, record: Promise) -> None:
        """Take over a settled record and wake all waiters."""
        ...


class Host(Protocol):
    """The execution, as its frames see it.

    Attributes:
        id: the id of the root function's promise, and the branch of the local calls that it makes itself.
        codec: the codec of recorded values.
        history: the records that existed before this run.
        journal: the writer of the execution's records.
        naming: the names of calls.
        facilities: the objects that all executions of the worker share.
        presence: the running frames, their waits and their deadlines.
        dropped: the reason why the execution was dropped, or None.
        error: the error that caused the drop, or None.
        now: a function that returns the server's time in milliseconds.
        draining: whether the worker is stopping, so that durable calls do not start.
        wary: whether a leaf is recorded before it begins, because a leaf may have ended the process before.
    """

    @property
    def wary(self) -> bool: ...

    @property
    def draining(self) -> bool: ...
    @property
    def id(self) -> str: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def history(self) -> History: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def naming(self) -> Naming: ...
    @property
    def facilities(self) -> Facilities: ...
    @property
    def presence(self) -> Presence: ...
    @property
    def dropped(self) -> Drop | None: ...
    @property
    def error(self) -> BaseException | None: ...
    @property
    def now(self) -> Callable[[], int]: ...

    async def gate(self) -> None:
        """Wait until a durable call may start. If the execution is dropped, raise the backend's cancellation."""
        ...

    async def check(self) -> None:
        """Raise the backend's cancellation if the execution was dropped."""
        ...

    async def wait(self, event: Event) -> None:
        """Wait for `event`, or until the execution is dropped. A shield in the user's code does not delay a drop."""
        ...

    async def hold(self, event: Event) -> None:
        """Wait for `event`, which another task of this execution sets. The execution stays hot meanwhile."""
        ...

    def interrupted(self) -> bool:
        """Return whether to ignore a cancellation that was just caught, because the execution is being dropped."""
        ...

    def interrupt(self, exc: BaseException | None) -> None:
        """Drop the execution if `exc` is an interrupt, or contains one."""
        ...

    def drop(self, reason: Drop, error: BaseException | None = None) -> None:
        """Drop the execution. The first reason stands."""
        ...

    async def listen(self, node: Awaited) -> None:
        """Subscribe to the settlement of a promise that is settled elsewhere."""
        ...

    def unlisten(self, node: Awaited) -> None:
        """End the subscription."""
        ...


async def halt(host: Host, error: NonDeterminismError) -> NoReturn:
    """Drop the execution and halt its task: no worker runs the task until it is resumed. The promise stays pending."""
    host.drop(Drop.HALTED, error)
    await raise_cancelled()


async def crash(host: Host, error: Exception) -> NoReturn:
    """Drop the execution: the worker or the server failed in a way that is not an outcome of the function."""
    host.drop(Drop.CRASHED, error)
    await raise_cancelled()
