"""`Handle`: an execution seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import define, field

from .._requests._queries import get_promise
from .._workflow._outcomes import value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from .._protocol import Promise
    from .._worker._face import Face, LocalExecution

T = TypeVar("T")


@define(eq=False, repr=False)
class Handle(Generic[T]):
    """An execution that was started, joined or looked up by id. Awaiting the handle returns its result.

    Subscriptions may be cancelled at any time: the execution goes on. Only `cancel` ends it.

    Attributes:
        id: the full id, prefix included.
    """

    id: str
    _type: Any
    _worker: Callable[[str, str | None], Face]
    _local: LocalExecution | None = None
    _settled: Promise | None = field(default=None, init=False)
    _live: TracebackType | None = field(default=None, init=False)

    def __await__(self) -> Generator[Any, Any, T]:
        return self.result().__await__()

    async def result(self) -> T:
        """Wait for the result and return it, or raise what the execution failed with. May be called many times.

        Raises:
            DurableTimeoutError: its deadline passed.
            DurableCancelledError: it was cancelled.
            ApplicationError: it failed with an exception whose type this program does not know.
            NonDeterminismError: its replay in this process has been halted.
            DecodeError: the recorded result does not fit the requested type.
            NotRunning: the `Resonate` object was stopped first.
        """
        worker = self._worker(f"the result of {self!r}", "ctx.rpc()")
        if self._settled is None:
            self._settled, self._live = await worker.outcome(self.id, self._local)
            # The execution is over, and need not live as long as this handle.
            self._local = None
        return cast("T", value_of(self._settled, self._type, worker.codec, live=self._live))

    async def done(self) -> bool:
        """Return whether the execution has ended, without waiting for it."""
        return not (await get_promise(self._worker(f"done() of {self!r}", None).ask, self.id)).pending

    async def cancel(self) -> bool:
        """Cancel the execution: settle its promise, end its local code, and cancel all pending calls below it.

        Returns:
            Whether this call has cancelled it. False: it had ended before, and its outcome stands.
        """
        return await self._worker(f"cancel() of {self!r}", None).cancel(self.id)

    def __repr__(self) -> str:
        return f"<Handle {self.id}>"
