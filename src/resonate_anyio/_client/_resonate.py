"""`Resonate`: what a program makes to register, start and await durable functions."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from .._api._context import Context
from .._codec import Codec
from .._errors import InvalidArgument, InvalidFunction, NotRegistered
from .._functions._function import Function, check_call
from .._functions._info import Info
from .._ids import check_root_id
from .._observe import Observer
from .._requests._queries import get_promise
from ..abc import Network, Store
from ._calls import RpcCall, RunCall
from ._checks import check_id
from ._handle import Handle
from ._lifecycle import Lifecycle
from ._promises import Promises
from ._schedules import ScheduleCall, Schedules
from ._settings import LocalSettings, documented, local_network, resolve
from ._worlds import check_world

if TYPE_CHECKING:
    from typing import Self

    from cattrs import Converter
    from typing_extensions import TypeForm

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Resonate(Lifecycle):
    """Registers, starts and awaits durable functions.

    It can be made at import time, outside of any event loop. `async with resonate:` starts it; all its tasks are
    children of that block. Leaving the block stops it in order: running leaves get a grace period, finished calls are
    recorded, and unfinished executions are released and continue at the next start. It may be entered again after that.

    Where start and stop are in different tasks (notebooks, fixtures of tests, hooks of frameworks), `await
    resonate.start()` and `await resonate.stop()` do the same without a block.
    """

    @documented
    def __init__(  # noqa: PLR0913 - one for each setting, all by name
        self,
        url: str | None = None,
        *,
        store: Store | None = None,
        network: Network | None = None,
        token: str | None = None,
        group: str | None = None,
        pid: str | None = None,
        prefix: str | None = None,
        converter: Converter | None = None,
        ttl: float | timedelta = 60.0,
        grace: float | timedelta = 10.0,
        threads: int = 40,
        hot_for: float | timedelta = 60.0,
        max_executions: int | None = None,
        hot_limit: int = 1000,
        parked_limit: int = 10_000,
        one_request: bool | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Take settings; nothing is opened yet.

        `url`, `store` and `network` each say where promises are kept, so at most one of them is given. Without any, the
        environment says it; if it does not either, promises are kept in memory. Durations are seconds or `timedelta`.

        The fields of `_worker._settings.Settings` document the arguments, and `help(Resonate)` lists them.

        Raises:
            UsageError: url, store, network and token contradict each other.
            InvalidArgument: a setting is unusable.
        """
        arguments = {name: value for name, value in locals().items() if name not in {"self", "__class__"}}
        settings, network = resolve(arguments, os.environ)
        super().__init__(settings, network, Codec() if converter is None else Codec(converter))
        self.promises: Promises = Promises(self._codec, self._worker_for)
        """Durable promises by hand."""
        self.schedules: Schedules = Schedules(self._codec, self._worker_for)
        """Schedules by hand."""

    @classmethod
    def local(cls, path: str | os.PathLike[str] | None = None, **settings: Unpack[LocalSettings]) -> Resonate:
        """Return an object with an embedded engine, whatever the environment says.

        Args:
            path: the SQLite file that keeps the promises; None keeps them in memory, with this object.
            settings: as for `Resonate`, without `url`, `token`, `store` and `network`.
        """
        return cls(network=local_network(None if path is None else _in_file(path)), **settings)

    # Functions and dependencies

    @overload
    def register(
        self,
        func: F,
        /,
        *,
        name: str | None = None,
        version: int | None = None,
        single_arg: bool | None = None,
        replace: bool = False,
    ) -> F: ...
    @overload
    def register(
        self,
        /,
        *,
        name: str | None = None,
        version: int | None = None,
        single_arg: bool | None = None,
        replace: bool = False,
    ) -> Callable[[F], F]: ...
    def register(
        self,
        func: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        version: int | None = None,
        single_arg: bool | None = None,
        replace: bool = False,
    ) -> Any:
        """Make a function known, so that it can be called by name, from other processes, and recovered after a crash.

        It may be called at any time. A `Resonate` object without functions is a client, which is sent no work; the
        first function that is registered while it runs makes a worker of it. Also a decorator, with or without
        arguments. Returns the function itself.

        Args:
            func: the function.
            name: the name that it is called by. Default: the name of `@durable`, else its own.
            version: the version of the function. Default: the version of `@durable`, else 1.
            single_arg: whether the recorded arguments of a call are its one argument. It is for functions that take an
                array from Rust or Go. Default: the value of `@durable`, else False.
            replace: replace the function that has this name and version already, e.g. in a notebook, where an edited
                cell defines it anew. Calls that begin from now on get the new function. Executions in progress keep the
                old one until they end or are replayed (after a restart, or after they were unloaded while they
                waited).

        Raises:
            AlreadyRegistered: another function has this name and version, and `replace` was not given.
            InvalidFunction: it cannot be a durable function.
        """
        if func is None:
            return lambda f: self.register(f, name=name, version=version, single_arg=single_arg, replace=replace)
        if isinstance(func, str):
            msg = f"register takes the name as a keyword: @resonate.register(name={func!r})"
            raise InvalidFunction(msg)
        function = self._registry.add(func, name, version, single_arg=single_arg, replace=replace)
        self._tell_worker(function.name)
        return func

    def with_dependency(self, value: object, kind: type | None = None) -> Self:
        """Give durable functions an object that is not an argument, such as a connection pool.

        They get it with `ctx.get_dependency(T)` or `info.get_dependency(T)`.

        Args:
            value: the object.
            kind: the type that it is asked for by. Default: its own type.

        Raises:
            UsageError: `value` is not an instance of `kind`.
        """
        self._dependencies.add(value, type(value) if kind is None else kind)
        return self

    # Calls

    @overload
    def run(
        self, id: str, func: Callable[Concatenate[Context, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunCall[T]: ...
    @overload
    def run(
        self, id: str, func: Callable[Concatenate[Info, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunCall[T]: ...
    @overload
    def run(
        self, id: str, func: Callable[Concatenate[Info, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunCall[T]: ...
    @overload
    def run(self, id: str, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> RunCall[T]: ...
    @overload
    def run(self, id: str, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> RunCall[T]: ...
    @overload
    def run(self, id: str, func: str, /, *args: Any, **kwargs: Any) -> RunCall[Any]: ...
    def run(self, id: str, func: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> RunCall[Any]:
        """Run a registered function durably: here if it is new, and after a crash in any process of the group.

        If the id is in use, this joins its execution, which may have ended.

        Raises:
            InvalidId: the id is empty, too long, or contains `.` or `:`.
            NotRegistered: the function is not registered.
            InvalidArgument: it cannot be called with these arguments.
        """
        check_world("resonate.run()", "ctx.run()")
        full = self._full_id(id)
        function = self._registered(func)
        check_call(function, args, kwargs)
        return RunCall(self, "run", full, function, args, kwargs, function.returns)

    @overload
    def rpc(
        self, id: str, func: Callable[Concatenate[Context, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RpcCall[T]: ...
    @overload
    def rpc(
        self, id: str, func: Callable[Concatenate[Info, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RpcCall[T]: ...
    @overload
    def rpc(
        self, id: str, func: Callable[Concatenate[Info, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> RpcCall[T]: ...
    @overload
    def rpc(self, id: str, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> RpcCall[T]: ...
    @overload
    def rpc(self, id: str, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> RpcCall[T]: ...
    @overload
    def rpc(self, id: str, func: str, /, *args: Any, **kwargs: Any) -> RpcCall[Any]: ...
    def rpc(self, id: str, func: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> RpcCall[Any]:
        """Run a function durably on any worker of the target, by name or by function. See `run`.

        A name need not be registered here.

        Raises:
            InvalidId: the id is empty, too long, or contains `.` or `:`.
            NotRegistered: the function is not registered.
            InvalidArgument: it cannot be called with these arguments.
        """
        check_world("resonate.rpc()", "ctx.rpc()")
        full = self._full_id(id)
        callee = self._callee(func, args, kwargs)
        returns = Any if isinstance(callee, str) else callee.returns
        return RpcCall(self, "rpc", full, callee, args, kwargs, returns)

    @overload
    def schedule(
        self, name: str, cron: str, func: Callable[Concatenate[Context, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> ScheduleCall: ...
    @overload
    def schedule(
        self, name: str, cron: str, func: Callable[Concatenate[Info, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> ScheduleCall: ...
    @overload
    def schedule(
        self, name: str, cron: str, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> ScheduleCall: ...
    @overload
    def schedule(self, name: str, cron: str, func: str, /, *args: Any, **kwargs: Any) -> ScheduleCall: ...
    def schedule(
        self, name: str, cron: str, func: Callable[..., Any] | str, /, *args: Any, **kwargs: Any
    ) -> ScheduleCall:
        """Start a function again and again by cron, in UTC. Each run has the id `{name}-{epoch milliseconds}`.

        Weekdays count from 1 = Sunday, so spell them (`mon-fri`); when day and weekday are both restricted, both must
        match. Occurrences that passed while no server ran are made up for, in order.

        Raises:
            InvalidArgument: the name or the cron expression is not valid, or the arguments do not fit.
            NotRegistered: the function is not registered.
        """
        check_world("resonate.schedule()", "ctx.detached()")
        return ScheduleCall(self, self.schedules, name, cron, self._callee(func, args, kwargs), args, kwargs)

    @overload
    async def get(self, id: str) -> Handle[Any]: ...
    @overload
    async def get(self, id: str, type_: TypeForm[T]) -> Handle[T]: ...
    async def get(self, id: str, type_: Any = Any) -> Handle[Any]:
        """Return a handle to an execution that exists already.

        Args:
            id: its id, with or without the prefix; ids of children, with dots, are taken as they are.
            type_: the type that its result is rebuilt as.

        Raises:
            NotFound: it does not exist.
        """
        check_world("resonate.get()", "ctx.rpc() or ctx.promise()")
        worker = self._worker()
        full = self._existing_id(id)
        await get_promise(worker.ask, full)
        return Handle(full, type_, self._worker_for, worker.running(full))

    async def cancel(self, id: str) -> bool:
        """Cancel an execution: settle its promise, end its local code, and cancel all pending calls below it.

        Returns:
            Whether this call has cancelled it. False: it had ended before, and its outcome stands.

        Raises:
            NotFound: it does not exist.
        """
        check_world("resonate.cancel()", None)
        return await self._worker().cancel(self._existing_id(id))

    async def resume(self, id: str) -> None:
        """Let an execution continue that was halted because its replay differed from its history.

        Raises:
            NotFound: it does not exist.
            UsageError: it is not halted: it runs, or has ended.
            RequestError: the server refuses this client.
        """
        check_world("resonate.resume()", None)
        await self._worker().resume(self._existing_id(id))

    # Inside

    def _registered(self, func: Callable[..., Any] | str) -> Function:
        if isinstance(func, str):
            return self._registry.get(func)
        function = self._registry.find(func)
        if function is None:
            name = Function.of(func).name
            raise NotRegistered(name, known=self._registry.names, changed=self._registry.has(name))
        return function

    def _callee(self, func: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Function | str:
        if isinstance(func, str):
            if not func:
                msg = "the name of a function must not be empty"
                raise InvalidArgument(msg)
            return func
        function = self._registered(func)
        check_call(function, args, kwargs)
        return function

    def _full_id(self, id: str) -> str:
        return check_root_id(id, prefix=self._settings.prefix)

    def _existing_id(self, id: str) -> str:
        # Ids of children contain separators, which differ between SDKs, and the prefix already.
        check_id(id, "promise")
        return id if "." in id or ":" in id else self._full_id(id)


def _in_file(path: str | os.PathLike[str]) -> Store:
    # Programs without a file need not wait for the import of SQLite.
    from ..stores import SQLiteStore  # noqa: PLC0415

    return SQLiteStore(Path(path))
