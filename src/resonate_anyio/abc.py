"""The contracts of stores and networks.

A store keeps the state of an embedded engine; a network carries requests to a server and messages back. Both may be
implemented outside of this package, with the vocabulary of `resonate_anyio.protocol`. `check_store` and `check_network`
of `resonate_anyio.testing` check an implementation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias, TypeVar

from anyio.abc import ObjectReceiveStream
from attrs import frozen

from .protocol import Message, Outcome, Request, Response, Step, View

__all__ = ("Clock", "Connection", "Dialect", "Gap", "Identity", "Network", "Store")

T = TypeVar("T")

Clock: TypeAlias = Callable[[], int]
"""Returns the present instant in integer milliseconds since the Unix epoch. It may jump; its users make it monotone."""


class Store(ABC):
    """Keeps the state of one embedded engine.

    A store is synchronous and knows no rules. It is used by one thread at a time. Between `close()` and the next
    `open()` only `open()` is called. Records outlive `close()`: they stay in memory as long as the store
    object, or in a file.
    """

    #: Whether `transact` and `read` may wait for the disk. If so they are never called on an event loop.
    blocking: bool = False

    #: Whether a transaction costs much more than a step of it. If so, requests that arrive together share one.
    costly_transactions: bool = False

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
    """The name of a connection, and the name that leases are taken in.

    Attributes:
        group: the worker group whose `any` messages the connection receives.
        pid: the name of the connection in addresses, unique in the group.
        holder: the name that leases are taken in, unique for every start of every process.
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
        """The address of this connection if it is open, else of any connection of its group."""
        return f"poll://any@{self.group}/{self.pid}"


@frozen(kw_only=True)
class Dialect:
    """How a server reads ids. Servers that speak one protocol version differ in that (docs/distribution.md 6).

    Attributes:
        separator: what joins the id of a root and the first part below it. Deeper parts are joined by a dot.
        origins_mix: whether one heartbeat may name tasks of several roots.
    """

    separator: str = "."
    origins_mix: bool = True


@frozen
class Gap:
    """An element of the message stream: messages may have been lost before it.

    The receiver asks again for everything that it waits for.
    """


class Connection(ABC):
    """One participant of a network, from the start to the end of the block of `Network.connect`.

    When the task that holds the block is cancelled, requests under a shield are still answered until the block is left.
    After the block `request` and `blocking_request` raise `UsageError`, and `messages` has ended.
    """

    #: Messages for this connection, in a buffer without limit: the receiver need not keep pace with the network.
    #: Closing the stream makes the network route messages elsewhere; requests can still be made.
    messages: ObjectReceiveStream[Message | Gap]

    #: Whether the network renews the leases of `Identity.holder` as long as this connection is open. If not, leases
    #: lapse unless heartbeats are sent.
    keeps_leases: bool = False

    #: Sends one request and returns its answer, like `request`, but blocks; it is called from a thread. None if the
    #: network has no such function: heartbeats are then sent from the event loop.
    blocking_request: Callable[[Request], Response] | None = None

    #: Seconds between two comparisons of the server's clock with that of the event loop, which part when the computer
    #: is suspended or a clock is set. `math.inf`: they are not compared.
    clock_check: float = 60.0

    #: Seconds after which the receiver asks again for everything that it waits for, because messages may get lost
    #: without a `Gap`. `math.inf`: they do not.
    recheck: float = math.inf

    @property
    def dialect(self) -> Dialect:
        """How the server reads ids. It is known as soon as one request was answered."""
        return Dialect()

    @abstractmethod
    def now(self) -> int:
        """Return the server's present instant in milliseconds, as well as it is known. It never goes back."""

    def elapsed(self) -> float:
        """Return the seconds since some fixed instant. Leases are measured with it.

        This clock goes on while the computer is suspended, and is never set back. It is read from other threads too.
        """
        return self.now() / 1000

    @abstractmethod
    async def request(self, request: Request) -> Response:
        """Send one request and return its answer, whatever its status.

        A cancellation is delivered before the request has had any effect, or not at all. A request is sent once: the
        caller decides whether to repeat one that was not answered.

        Raises:
            TooLarge: the request is larger than the server takes; it had no effect.
            NetworkError: there is no answer, and it is unknown whether the request had an effect
                (`StoreUnavailable`: it had none).
            UsageError: the connection is closed.
            ResonateError: there is no answer, for a reason that does not pass by itself.
        """

    async def request_within(self, request: Request, seconds: float) -> Response:
        """Send one request for a caller that waits only about so many seconds for the answer.

        A network whose requests always end in reasonable time need not implement this.
        """
        del seconds
        return await self.request(request)


class Network(ABC):
    """Carries requests to a server (or an embedded engine) and messages back. Several workers may share one."""

    #: Seconds after which a request that was not answered has no effect any more. A lease has to be longer by far.
    request_timeout: float = 0.0

    @abstractmethod
    def connect(self, identity: Identity) -> AbstractAsyncContextManager[Connection]:
        """Open a connection. Its tasks are children of the task that enters the block.

        A server that cannot be reached now is not an error: requests fail until it can be reached.

        Raises:
            StoreError: the store of an embedded engine cannot be opened. Raised out of the block later on: the store is
                gone (`StoreLost`).
            RequestError: the server refuses this client, e.g. its token.
        """
