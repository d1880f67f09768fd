"""`Resonate`: the ephemeral world's way into the durable one."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

import anyio
from anyio import create_task_group, get_cancelled_exc_class
from anyio.lowlevel import current_token
from attrs import frozen

from .._api._context import Context
from .._codec import Codec
from .._concurrency._package import caller
from .._errors import InvalidArgument, InvalidFunction, NotRegistered, NotRunning, UsageError
from .._functions._dependencies import Dependencies
from .._functions._function import Function, Registry, check_call
from .._functions._info import Info
from .._ids import check_root_id, prefix_refusal
from .._requests._queries import get_promise
from .._worker._worker import Worker
from ..abc import Network, Store
from ..networks import LocalNetwork
from ..stores import MemoryStore, SQLiteStore
from ._calls import RpcCall, RunCall
from ._checks import check_id
from ._handle import Handle
from ._host import Host, sole
from ._promises import Promises
from ._schedules import ScheduleCall, Schedules
from ._settings import LocalSettings, documented, resolve
from ._worlds import check_world

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from cattrs import Converter
    from typing_extensions import TypeForm

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Resonate:
    """Registers, starts and awaits durable functions.

    It can be made at import time, outside of any event loop. `async with resonate:` starts it; everything that it does
    is a child of that block, and leaving the block stops it in order: running leaves get a grace period, what has
    finished is recorded, what has not is released and goes on at the next start. It may be entered again after that.

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
    ) -> None:
        """Take settings; nothing is opened yet.

        `url`, `store` and `network` each say where promises are kept, so at most one of them is given. Without any, the
        environment says it; if it does not either, promises are kept in memory. Durations are seconds or `timedelta`.

        The fields of `_worker._settings.Settings` document the arguments, and `help(Resonate)` lists them.

        Raises:
            UsageError: url, store, network and token contradict each other.
            InvalidArgument: a setting is unusable.
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        self._settings, self._network = resolve(arguments, os.environ)
        self._registry = Registry()
        self._dependencies = Dependencies()
        self._codec = Codec() if converter is None else Codec(converter)
        self._host: Host | None = None
        self._block: AsyncExitStack | None = None
        self._failure: BaseException | None = None
        self.promises: Promises = Promises(self._codec, self._worker_for)
        """Durable promises by hand."""
        self.schedules: Schedules = Schedules(self._codec, self._worker_for)
        """Schedules by hand."""

    @classmethod
    def local(cls, path: str | os.PathLike[str] | None = None, **settings: Unpack[LocalSettings]) -> Resonate:
        """Make one with an embedded engine, whatever the environment says.

        Args:
            path: the SQLite file that keeps the promises; None keeps them in memory, with this object.
            settings: as for `Resonate`, without `url`, `token`, `store` and `network`.
        """
        store: Store = MemoryStore() if path is None else SQLiteStore(Path(path))
        return cls(network=LocalNetwork(store), **settings)

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
            name: what it is called by. Default: what `@durable` says, else its own name.
            version: which version of it this is. Default: what `@durable` says, else 1.
            single_arg: whether what is recorded as the arguments of a call is its one argument, as it is. It is for
                functions that take an array from Rust or Go. Default: what `@durable` says, else no.
            replace: take the place of the function that has this name and version already, as in a notebook, where an
                edited cell defines it anew. Calls that begin from now on get the new one. What runs keeps the old one
                until it ends or is replayed (after a restart, or when it has left memory while it waited).

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
        """Give durable functions an object that is no argument, such as a connection pool.

        They get it with `ctx.get_dependency(T)` or `info.get_dependency(T)`.

        Args:
            value: the object.
            kind: what it is asked for by. Default: its own type.

        Raises:
            UsageError: `value` is no `kind`.
        """
        self._dependencies.add(value, type(value) if kind is None else kind)
        return self

    # Life

    async def __aenter__(self) -> Self:
        self._check_idle("async with resonate")
        host = self._host = self._new_host(alone=False)
        failure: BaseException | None = None
        try:
            async with AsyncExitStack() as stack:
                tasks = await stack.enter_async_context(create_task_group())
                tasks.start_soon(host.run, name=host.name)
                failure = await host.begun()
                if failure is None:
                    self._block = stack.pop_all()
        finally:
            if self._block is None:
                self._host = None
        # Raised outside of the task group, which would wrap it.
        if failure is not None:
            raise failure
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Everything of ours has ended after `stop`. The body's exception is kept away from the task group inside,
        # which would wrap it.
        assert self._host is not None
        assert self._block is not None
        try:
            try:
                await self._host.stop()
            finally:
                await self._block.aclose()
        except BaseExceptionGroup as group:
            raise sole(group) from None
        finally:
            self._host = self._block = None

    async def start(self) -> Self:
        """Start it without a block: for notebooks, fixtures of tests, and frameworks with a hook for start and stop.

        It lives in a task of its own, beside all others of this event loop, until `stop()` is called, by any task of
        the loop. If the loop ends first, it is stopped then, with a `ResourceWarning`. An engine that fails meanwhile
        tells the log; `serve()` and `stop()` raise what it failed with, and other calls `NotRunning`.

        Returns:
            The object itself.

        Raises:
            UsageError: it is running already.
            StoreError: the database file cannot be used (`StoreInUse`: another engine owns it).
            RequestError: the server refuses this client, e.g. its token.
        """
        self._check_idle("resonate.start()")
        self._failure = None
        host = self._host = self._new_host(alone=True)
        host.spawn()
        failure = await host.begun()
        if failure is not None:
            self._failure = None
            raise failure
        return self

    async def stop(self) -> None:
        """Stop in order, as leaving the block does, and return when that is done and the file is given back.

        It ends what `start()` or `async with` has begun, from any task of the event loop, and may be called again. What
        waits here for a result gets `NotRunning`. After `start()` it can be started again at once; inside of a block,
        once the block has been left.

        Raises:
            NotRunning: it runs in another event loop.
            BaseException: the engine had failed before, after `start()`: what it failed with, once.
        """
        check_world("resonate.stop()", None)
        host = self._host
        if host is not None:
            self._check_loop(host)
            await host.stop()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _new_host(self, *, alone: bool) -> Host:
        return Host(
            name=f"<Resonate {self._settings.group}/{self._settings.pid}>",
            open=self._open,
            refuse=lambda worker: prefix_refusal(self._settings.prefix, worker.separator),
            when_begun=self._when_begun,
            when_ended=self._when_ended if alone else lambda _: None,
            alone=alone,
            started_at=caller(),
        )

    def _when_begun(self, worker: Worker) -> None:
        # Functions may have been registered while it was starting.
        for name in self._registry.bare_names:
            worker.registered(name)

    def _when_ended(self, host: Host) -> None:
        self._host = None
        failure = host.failure
        # Groups say which tasks it went through, and the log has that.
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
        self._failure = None if isinstance(failure, get_cancelled_exc_class()) else failure

    def _check_idle(self, call: str) -> None:
        check_world(call, None)
        host = self._host
        if host is None:
            return
        if host.process != os.getpid():
            msg = f"{call}: this Resonate object was started before a fork; make another one in this process"
        elif host.token != current_token():
            msg = f"{call}: this Resonate object is running already, in another event loop; make one for each loop"
        else:
            msg = (
                f"{call}: this Resonate object is running already; it is started once at a time, and ended by "
                f"await resonate.stop() or by leaving its block. For a second one make another object"
            )
        raise UsageError(msg)

    def _open(self) -> Any:
        return Worker.open(
            self._network,
            self._settings.identity(works=bool(self._registry.names)),
            settings=self._settings,
            registry=self._registry,
            codec=self._codec,
            dependencies=self._dependencies,
            make_context=Context,
        )

    async def serve(self) -> None:
        """Keep a worker going until it is stopped: by `stop()`, by being cancelled, or by SIGINT or SIGTERM.

        A second signal gives running leaves no more grace, and lets go of what has ended although other code does not
        end. A third one is the interpreter's own. Nothing else in this package installs signal handlers.

        Raises:
            BaseException: the engine has failed, after `start()`: what it failed with. In a block that ends the block.
        """
        check_world("resonate.serve()", None)
        worker, host = self._worker(), self._host
        assert host is not None
        async with create_task_group() as tasks:
            tasks.start_soon(_stop_on_signal, worker)
            await host.ended.wait()
            tasks.cancel_scope.cancel()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

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

        The same id joins what runs, or has run, under it.

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
            NotRegistered: a function was given that is not registered.
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
        match. What was missed while no engine ran is made up for, in order.

        Raises:
            InvalidArgument: the name or the cron expression is not valid, or the arguments do not fit.
            NotRegistered: a function was given that is not registered.
        """
        check_world("resonate.schedule()", "ctx.detached()")
        return ScheduleCall(self, name, cron, self._callee(func, args, kwargs), args, kwargs)

    @overload
    async def get(self, id: str) -> Handle[Any]: ...
    @overload
    async def get(self, id: str, type_: TypeForm[T]) -> Handle[T]: ...
    async def get(self, id: str, type_: Any = Any) -> Handle[Any]:
        """Return a handle to an execution that exists already.

        Args:
            id: its id, with or without the prefix; ids of children, with dots, are taken as they are.
            type_: what its result is rebuilt as.

        Raises:
            NotFound: there is none.
        """
        check_world("resonate.get()", "ctx.rpc() or ctx.promise()")
        worker = self._worker()
        full = self._existing_id(id)
        await get_promise(worker.ask, full)
        return Handle(full, type_, self._worker_for, worker.executions.get(full))

    async def cancel(self, id: str) -> bool:
        """Cancel an execution: its promise is settled, its local code ended, what is pending below it cancelled.

        Returns:
            Whether this call has ended it. False: it had ended before, and its outcome stands.

        Raises:
            NotFound: there is none.
        """
        check_world("resonate.cancel()", None)
        return await self._worker().cancel(self._existing_id(id))

    async def resume(self, id: str) -> None:
        """Let an execution continue that was halted because its replay differed from its history.

        Raises:
            NotFound: there is none.
            UsageError: it is not halted: it runs, or has ended.
            RequestError: the server refuses this client.
        """
        check_world("resonate.resume()", None)
        await self._worker().resume(self._existing_id(id))

    # Inside

    def _tell_worker(self, name: str) -> None:
        """If it runs already: what was given back for want of this function is taken, and the first makes a worker."""
        running = self._running
        if running is not None and running.host.process == os.getpid():
            running.worker.registered(name)

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
        # Those of children have separators in them, each SDK its own, and the prefix already.
        check_id(id, "promise")
        return id if "." in id or ":" in id else self._full_id(id)

    def _worker_for(self, call: str, instead: str | None) -> Worker:
        """The worker for a call that belongs outside of durable functions."""
        check_world(call, instead)
        return self._worker()

    def _worker(self) -> Worker:
        running = self._running
        if running is None:
            raise NotRunning(self._why_not_running()) from self._failure
        self._check_loop(running.host)
        if running.worker.draining:
            msg = "this Resonate object has been stopped; leave its block and enter it again"
            if running.host.alone:
                msg = "this Resonate object is being stopped; await resonate.start() when that has ended"
            raise NotRunning(msg)
        return running.worker

    @property
    def _running(self) -> _Running | None:
        host = self._host
        return None if host is None or host.worker is None else _Running(host.worker, host)

    def _why_not_running(self) -> str:
        if self._failure is not None:
            return (
                f"this Resonate object has failed ({type(self._failure).__name__}: {self._failure}) and runs no more; "
                f"await resonate.start() begins anew"
            )
        return (
            "this Resonate object is not running; calls are made inside its block (async with resonate: ...), or "
            "after await resonate.start()"
        )

    @staticmethod
    def _check_loop(host: Host) -> None:
        if host.process != os.getpid():
            msg = "this Resonate object was started before a fork; make another one in this process"
            raise NotRunning(msg)
        if current_token() != host.token:
            msg = "this Resonate object runs in another event loop; make one for each loop"
            raise NotRunning(msg)

    def __repr__(self) -> str:
        state = "running" if self._running is not None else "not running"
        return f"<Resonate {self._settings.group}/{self._settings.pid} {state}>"


@frozen
class _Running:
    """What exists between the start and the stop."""

    worker: Worker
    host: Host


async def _stop_on_signal(worker: Worker) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        worker.begin_to_stop()
        await anext(signals)
        worker.hurry()
