"""The port of a run: what it needs of the execution that it belongs to."""

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
    from ._presence import Presence


class Drop(Enum):
    """Why an execution was evicted from memory."""

    UNLOADED = "unloaded"
    """The worker stops, or has too many in memory: the task runs on elsewhere, or here when it is sent for."""
    SETTLED = "settled"
    """Its promise was settled from outside."""
    LOST = "lost"
    """Another worker holds the task, or may."""
    HALTED = "halted"
    """A replay asked for something else than what is recorded."""
    CRASHED = "crashed"
    """The worker or the server failed in a way that is not an outcome of the function."""
    INTERRUPTED = "interrupted"
    """KeyboardInterrupt, SystemExit or the like is on its way through its code: the program ends."""


@frozen(kw_only=True, eq=False)
class Facilities:
    """What all runs on one worker use, and what does not change while it runs.

    Attributes:
        codec: writes and reads values.
        threads: run synchronous leaves.
        dependencies: objects that functions ask for by type.
        random: a number in [0, 1), for jitter.
        backoff: makes the pauses between attempts that fail.
        make_context: makes what a workflow is given as its first argument.
        find_function: finds a registered function by the callable.
        own_group: the address of any worker of the worker's own group.
        nowhere: an address that no worker listens at: a promise needs a target for its deadline to fire.
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


class Journal(Protocol):
    """What an execution puts on record, and asks of the record."""

    async def create_local(self, request: PromiseCreate, *, again: bool = False) -> Promise:
        """Record a call that runs in this execution. With `again`, ask for one that is on record already."""
        ...

    async def create_remote(self, request: PromiseCreate) -> Promise:
        """Record a call that runs elsewhere, but only while this worker holds the task."""
        ...

    async def create_timer(self, request: PromiseCreate) -> Promise:
        """Record a promise whose deadline must fire although no worker may be there to look."""
        ...

    async def fresh(self, record: Promise) -> Promise:
        """Return `record` as it is now: a record of the history may be past its deadline and still say pending."""
        ...

    async def confirm_timeout(self, record: Promise) -> Promise:
        """Ask for a promise whose deadline has passed here until it has passed at the server as well."""
        ...

    async def settle(self, id: str, state: PromiseState, value: Value, *, finished: bool = False) -> Promise:
        """Record the end of a local call, and return what is on record then."""
        ...

    async def settle_late(self, id: str, state: PromiseState, value: Value) -> None:
        """Record the result of a leaf although its execution has been dropped."""
        ...

    async def fulfill(self, state: PromiseState, value: Value, *, finished: bool = False) -> Promise:
        """Record the end of the root, and return what is on record then."""
        ...

    async def look_up(self, id: str) -> Promise | None:
        """Return the record of `id`, if there is one now."""
        ...

    async def cancel_below(self, id: str) -> None:
        """Cancel what still runs or waits below a remote call that was cancelled."""
        ...

    def settled_here(self, record: Promise) -> None:
        """Note that this execution has settled a promise whose function may run in this process."""
        ...


class Awaited(Protocol):
    """A promise that is waited for, and that is settled elsewhere.

    Attributes:
        id: its id.
        pending: whether it has no outcome yet, as far as is known.
        record: what is known of it.
        due: for a sleep, the instant that was asked for, in the server's milliseconds.
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
        """Take over a settled record and wake all who wait."""
        ...


class Host(Protocol):
    """The execution, as a run of one of its functions sees it.

    Attributes:
        id: the id of its root, and the branch of every local call.
        codec: writes and reads values.
        history: what was on record before this run.
        journal: what is put on record goes through this.
        naming: gives ids to calls.
        facilities: what all executions of the worker share.
        presence: which frames run, what they wait for, and their deadlines.
        dropped: why the execution was evicted, or None.
        error: what went wrong, if that is why.
        now: returns the server's time in milliseconds.
        draining: whether the worker is stopping, so that no durable call starts.
    """

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
        """Wait until a durable call may start. When the execution is dropped, raise the backend's cancellation."""
        ...

    async def check(self) -> None:
        """Raise the backend's cancellation if the execution was dropped."""
        ...

    async def wait(self, event: Event) -> None:
        """Wait for `event`. A shield of the user's does not hold this when the execution is dropped."""
        ...

    async def hold(self, event: Event) -> None:
        """Wait for `event`, which another task of this execution sets. Meanwhile the execution stays hot."""
        ...

    def interrupted(self) -> bool:
        """Return whether a cancellation that was just caught means nothing, because the execution is being dropped."""
        ...

    def interrupt(self, exc: BaseException | None) -> None:
        """Drop the execution if `exc` is an interrupt, or contains one."""
        ...

    def drop(self, reason: Drop, error: BaseException | None = None) -> None:
        """Evict the execution. The first reason stands."""
        ...

    async def listen(self, node: Awaited) -> None:
        """Hear of the settlement of a promise that is not settled by this execution."""
        ...

    def unlisten(self, node: Awaited) -> None:
        """Stop listening."""
        ...


async def halt(host: Host, error: NonDeterminismError) -> NoReturn:
    """Stop here and let no worker run the execution until it is resumed. Its promise stays pending."""
    host.drop(Drop.HALTED, error)
    await raise_cancelled()


async def crash(host: Host, error: Exception) -> NoReturn:
    """Drop the execution: the worker or the server has failed in a way that is not an outcome of the function."""
    host.drop(Drop.CRASHED, error)
    await raise_cancelled()
