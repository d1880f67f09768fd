"""`Face`: all that the client sees of a running worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, final

from attrs import define

from .._codec import Codec
from .._execution._execution import Execution
from .._functions._dependencies import Dependencies
from .._functions._registry import Registry
from .._protocol import EMPTY, Promise, PromiseCreate, PromiseState, Request, Response, Value
from ..abc import Network
from ._settings import Settings
from ._worker import Worker

if TYPE_CHECKING:
    from .._api._context import Context
    from .._workflow._frame import Frame


@final
@define(eq=False, repr=False)
class LocalExecution:
    """An execution of this process, as the client holds it: only the worker looks inside."""

    _execution: Execution


@final
@define(eq=False, repr=False)
class Face:
    """A running worker, as the client sees it.

    Attributes:
        worker: the worker itself, which the client does not touch.
        codec: encodes and decodes values.
    """

    worker: Worker
    codec: Codec

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        network: Network,
        settings: Settings,
        registry: Registry,
        codec: Codec,
        dependencies: Dependencies,
        make_context: Callable[[Frame], Context],
    ) -> AsyncIterator[Face]:
        """Run a worker as long as the block lasts."""
        async with Worker.open(
            network,
            settings.identity(works=bool(registry.names)),
            settings=settings,
            registry=registry,
            codec=codec,
            dependencies=dependencies,
            make_context=make_context,
        ) as worker:
            yield cls(worker, codec)

    # The worker

    @property
    def separator(self) -> str:
        """The separator between the id of a root and the rest, on this server."""
        return self.worker.separator

    @property
    def draining(self) -> bool:
        """Whether the worker is being stopped."""
        return self.worker.draining

    def now(self) -> int:
        """Return the server's present instant in milliseconds."""
        return self.worker.connection.now()

    def registered(self, name: str) -> None:
        """Report that a function of that name was registered. Any thread may call this."""
        self.worker.membership.function_registered(name)

    def begin_to_stop(self) -> None:
        """Begin to stop the worker, if that has not begun."""
        self.worker.begin_to_stop()

    def hurry(self) -> None:
        """Stop the worker without any more grace."""
        self.worker.hurry()

    async def wait_stopped(self) -> None:
        """Wait until the worker has stopped."""
        await self.worker.stopped.wait()

    # Promises and executions

    async def ask(self, request: Request) -> Response:
        """Send a request that may be sent twice, and send it again if there is no answer."""
        return await self.worker.requester.request_with_retries(request)

    async def own_address(self) -> str:
        """Return the address of this process, or else of its group, once it receives what is sent there."""
        await self.worker.membership.join()
        return self.worker.identity.preferred

    async def start(self, create: PromiseCreate) -> tuple[Promise, LocalExecution | None]:
        """Start an execution here, or join the one that has the id already, wherever it runs."""
        promise, execution = await self.worker.acquisition.start(create)
        return promise, None if execution is None else LocalExecution(execution)

    def running(self, id: str) -> LocalExecution | None:
        """Return the execution with this id if it runs in this process."""
        execution = self.worker.executions.get(id)
        return None if execution is None else LocalExecution(execution)

    async def outcome(self, id: str, local: LocalExecution | None) -> tuple[Promise, TracebackType | None]:
        """Wait until a promise has settled.

        Args:
            id: the promise.
            local: the execution that settles it, if that runs in this process.

        Returns:
            The settled record, and the traceback of the code that failed, if it ran in this process.

        Raises:
            NonDeterminismError: the replay of the execution in this process has been halted.
            NotRunning: the worker stops first.
        """
        execution = None if local is None else local._execution
        promise = await self.worker.results.settled(id, execution)
        return promise, None if execution is None else execution.root.live

    async def settle(self, id: str, state: PromiseState, value: Value) -> tuple[Promise, bool]:
        """Settle a promise from outside; see `ClientRequests.settle`."""
        return await self.worker.client_requests.settle(id, state, value)

    async def cancel(self, id: str) -> bool:
        """Settle a promise as cancelled, and return whether this request has settled it."""
        _, here = await self.worker.client_requests.settle(id, PromiseState.CANCELED, EMPTY)
        return here

    async def resume(self, id: str) -> None:
        """Let a halted execution run again; see `ClientRequests.resume`."""
        await self.worker.client_requests.resume(id)
