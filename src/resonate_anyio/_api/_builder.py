"""`Builder`: a call that has been described but not made yet.

Every call of the API (`ctx.run(...)`, `resonate.rpc(...)`, ...) returns a builder. Option methods change it and return
it; `await` or `spawn()` makes the call, once. A builder that is garbage collected unused warns like a coroutine that
was never awaited.

A builder can also be used where a coroutine is required: `asyncio.create_task(ctx.run(...))`,
`asyncio.TaskGroup.create_task`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from .._concurrency._tasks import caller
from .._errors import BuilderUsed, UsageError
from .._functions._callables import UnmadeCall

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType
    from typing import Self

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
V = TypeVar("V")


class Builder(UnmadeCall, Coroutine[Any, Any, T_co], ABC, Generic[T_co]):
    """A call that is made when it is awaited; its result has the type `T_co`."""

    __slots__ = ("__name__", "__weakref__", "_coroutine", "_label", "_made_at", "_type", "_used")

    def __init__(self, label: str, type_: Any) -> None:
        self._used = False
        self._coroutine: Coroutine[Any, Any, T_co] | None = None
        self._label = label
        # asyncio gives this name to a task that runs the builder, and trio shows it if the builder is passed as a
        # function.
        self.__name__: str = label.partition("(")[0]
        self._type = type_
        self._made_at = caller()

    def __await__(self) -> Generator[Any, Any, T_co]:
        if self._used:
            self._use()
        self._used = True
        return self._run().__await__()

    # The methods of a coroutine. A task drives a coroutine without awaiting it; then its first step makes the call.

    def send(self, value: Any, /) -> Any:
        """Run one step, as a coroutine does."""
        if self._coroutine is None:
            self._use()
            self._coroutine = self._run()
        return self._coroutine.send(value)

    @overload
    def throw(self, typ: type[BaseException], val: object = None, tb: TracebackType | None = None, /) -> Any: ...
    @overload
    def throw(self, typ: BaseException, val: None = None, tb: TracebackType | None = None, /) -> Any: ...
    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Any:
        """Raise an exception where the call waits, as in a coroutine. A call that has not begun is never made."""
        if self._coroutine is None:
            self.excuse()
            self._coroutine = _never()
        exception = typ if isinstance(typ, BaseException) else val or typ()
        return self._coroutine.throw(exception if tb is None else exception.with_traceback(tb))

    def close(self) -> None:
        """End the call, as a coroutine. A call that has not begun is never made, and does not warn."""
        if self._coroutine is None:
            self.excuse()
        else:
            self._coroutine.close()

    if not TYPE_CHECKING:

        def __call__(self, *_: object, **__: object) -> NoReturn:
            """Refuse `start_soon(ctx.run(f))`, which calls its argument."""
            self.excuse()
            msg = (
                f"{self._label} is a call, not a function to start. Await it; or start it with asyncio's "
                f"create_task(), or with tg.start() of ctx.task_group(); or pass the function and its arguments: "
                f"start_soon({self.__name__}, func, *args)"
            )
            raise UsageError(msg)

    @abstractmethod
    def _run(self) -> Coroutine[Any, Any, T_co]:
        """Make the call and wait for its result."""

    def _use(self) -> None:
        if self._used:
            msg = f"{self._label} was started already; a call is awaited or spawned once: build another one"
            raise BuilderUsed(msg)
        self._used = True

    def _typed(self, type_: Any) -> Any:
        """Set the type of the result. Each kind of call declares `returns` with its own type."""
        self._configure()._type = type_
        return self

    def _configure(self) -> Self:
        if self._used:
            msg = f"{self._label} was started already; set its options before the await"
            raise BuilderUsed(msg)
        return self

    def _checked(self, convert: Callable[[V], U], value: V) -> U:
        """Return the converted value of an option. If the value is refused, the unused builder does not warn."""
        self._configure()
        try:
            return convert(value)
        except Exception:
            self._used = True
            raise

    def __repr__(self) -> str:
        return f"<{self._label}{'' if self._used else ', not awaited'}>"

    def excuse(self) -> None:
        """Do not warn if the call is never made."""
        self._used = True

    def _excused(self) -> bool:
        """Return whether an unused builder is not a mistake of the program."""
        return False

    def _excused_if_known(self) -> bool:
        try:
            return self._excused()
        except RuntimeError:
            # It is collected outside of its event loop, where trio does not allow to look at scopes.
            return False

    def __del__(self) -> None:
        if getattr(self, "_used", True) or self._excused_if_known():
            return
        filename, line = self._made_at
        message = f"{self._label} was never awaited, so the call was not made; write: await {self._label}"
        warnings.warn_explicit(message, RuntimeWarning, filename, line, source=self)


async def _never() -> Any:
    """Run in place of a call that is ended before it has begun."""
