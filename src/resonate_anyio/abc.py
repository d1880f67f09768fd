"""The contracts between the layers: what a store and a network owe to those who use them.

Both are public: a store keeps the state of an embedded engine, a network carries requests and messages. The engine
knows these contracts only, never an implementation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias, TypeVar

from anyio.abc import ObjectReceiveStream
from attrs import frozen

from ._protocol import Message, Outcome, Request, Response, Step, View

T = TypeVar("T")

Clock: TypeAlias = Callable[[], int]
"""Gives the present instant in integer milliseconds since the Unix epoch. It may jump; users of it make it monotone."""


class Store(ABC):
    """Keeps the state of one embedded engine.

    A store is synchronous and knows no rules. It is used by one thread at a time. Between `close()` and the next
    `open()` only `open()` is called. Records outlive `close()`: they stay in memory as long as the store
    object, or in a file.
    """

    #: Whether `transact` and `read` may wait for the disk. If so they are never called on an event loop.
    blocking: bool = False

    @property
    def slow_to_open(self) -> bool:
        """Whether `open` and `close` may take long at present. If so they are not called on an event loop."""
        return self.blocking

    @abstractmethod
    def open(self) -> None:
        """Make the store ready for use.

        Raises:
            StoreUnavailable: it cannot be opened now. The engine tries again for some seconds.
            StoreError: its state cannot be used (`StoreInUse`: another engine owns it).
        """

    @abstractmethod
    def close(self) -> None:
        """Release files and locks. Closing a closed store does nothing."""

    @abstractmethod
    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        """Run the steps one after the other, commit all their changes together, and return their outcomes.

        1. Each step sees the changes of the steps before it.
        2. If this method returns, every change is kept as safely as the store promises. If it raises, no change is.
        3. A step is called at most once, and exactly once if this method returns.
        4. This method does not block an event loop for long, for example by waiting for the lock of another program.

        Raises:
            StoreUnavailable: the changes could not be kept now. The engine tries again until they are kept.
            StoreLost: the records are gone or damaged. The engine stops.
            StoreError: these changes can never be kept. The request that caused them fails.
        """

    @abstractmethod
    def read(self, query: Callable[[View], T]) -> T:
        """Call `query` with a view of the present state and return its answer. It must not keep the view.

        The engine reads in this way whenever it changes nothing: for searches and for debug snapshots. A read takes no
        lock, and succeeds while the store cannot be written.

        Raises:
            StoreUnavailable: the state cannot be read now.
            StoreLost: the records are gone or damaged. The engine stops.
            StoreError: the state could not be read.
        """


@frozen(kw_only=True)
class Identity:
    """Who a connection speaks for.

    Attributes:
        group: the worker group that it receives `any` messages for.
        pid: its name in addresses, unique among the group's connections.
        holder: the name it takes leases in, unique for every start of every process.
    """

    group: str
    pid: str
    holder: str

    @property
    def unicast(self) -> str:
        """The address of this connection alone."""
        return f"poll://uni@{self.group}/{self.pid}"

    @property
    def preferred(self) -> str:
        """The address of this connection if it lives, else of any of its group."""
        return f"poll://any@{self.group}/{self.pid}"


@frozen(kw_only=True)
class Dialect:
    """How a server reads ids: servers that speak one protocol version differ in that (docs/distribution.md 6).

    Attributes:
        separator: what joins the id of a root and the first part below it. Deeper parts are joined by a dot.
        origins_mix: whether one heartbeat may name tasks of several roots.
    """

    separator: str = "."
    origins_mix: bool = True


@frozen
class Gap:
    """Stands in the stream of messages where some may have been lost: what is awaited has to be asked for again."""


class Connection(ABC):
    """One participant of a network, between the start and the end of `Network.connect`."""

    #: Messages for this connection. Closing the stream makes the network route elsewhere; requests go on. Whoever reads
    #: them only takes note of them: reading is never held up for long, and what is not read yet is kept.
    messages: ObjectReceiveStream[Message | Gap]

    #: Whether the network itself keeps the leases of `Identity.holder` alive as long as this connection is open. Else
    #: they lapse unless heartbeats are sent.
    keeps_leases: bool = False

    #: Sends one request and gives its answer, like `request`, but from a thread that may wait. None: there is no such
    #: way, and heartbeats are sent from the event loop.
    blocking_request: Callable[[Request], Response] | None = None

    #: How often, in seconds, to look whether the server's clock and the event loop's have parted (a suspended computer,
    #: a clock that was set). `math.inf`: never.
    clock_check: float = 60.0

    #: How often, in seconds, what is waited for is asked for again, because messages can be lost on this network.
    #: `math.inf`: never, none is.
    recheck: float = math.inf

    @property
    def dialect(self) -> Dialect:
        """How the server reads ids. It is known as soon as one request was answered."""
        return Dialect()

    @abstractmethod
    def now(self) -> int:
        """The server's present instant in milliseconds, as well as it is known."""

    def elapsed(self) -> float:
        """Seconds since some instant, for leases: this clock goes on while the computer sleeps, and is not set back.

        It is read from other threads as well.
        """
        return self.now() / 1000

    @abstractmethod
    async def request(self, request: Request) -> Response:
        """Send one request and return its answer, whatever its status.

        A cancellation is delivered before the request has had any effect, or not at all. A request is sent once:
        whether one that was not answered is sent again is for those to decide who know what it is for.

        Raises:
            TooLarge: it is larger than the server takes; it had no effect, and never will.
            NetworkError: there is no answer, and it is unknown whether the request had an effect
                (`StoreUnavailable`: it had none).
            ResonateError: the same, for a reason that will not pass by itself.
        """

    async def request_within(self, request: Request, seconds: float) -> Response:
        """Send one request for a caller who wants to hear after about so many seconds that there is no answer.

        A network whose requests end by themselves in reasonable time does as in `request`.
        """
        del seconds
        return await self.request(request)


class Network(ABC):
    """Carries requests to a server (or an embedded engine) and messages back. Several workers may share one."""

    #: Seconds after which a request that was not answered has no effect any more. A lease has to be longer by far.
    request_timeout: float = 0.0

    @abstractmethod
    def connect(self, identity: Identity) -> AbstractAsyncContextManager[Connection]:
        """Open a connection. What it needs to live is a child of the task that enters it.

        A server that cannot be reached now is no error: requests fail until it can be.

        Raises:
            StoreError: an embedded engine's store cannot be opened. Later, out of the block: it is gone (`StoreLost`).
            RequestError: the server refuses this client, e.g. its token.
        """
