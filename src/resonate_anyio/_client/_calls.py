"""Builders of the ephemeral world: starting roots, here or elsewhere, and scheduling them."""

from __future__ import annotations

import warnings
from abc import ABC
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .._api._builder import Builder
from .._errors import DecodeError, ExecutionMismatch
from .._functions._arguments import RemoteCall
from .._functions._durable import check_version
from .._protocol import Promise, PromiseCreate, Value
from .._requests._addresses import address
from .._requests._queries import promise_of
from .._time import to_ms
from .._workflow._invocation import ONE_YEAR_MS
from ._checks import check_own_tags
from ._handle import Handle

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import TypeForm

    from .._execution._execution import Execution
    from .._functions._function import Function
    from .._worker._worker import Worker
    from ._resonate import Resonate

T = TypeVar("T")
U = TypeVar("U")


class RootCall(Builder[T], ABC):
    """What calls from outside have in common: options, and what goes on record."""

    __slots__ = ("_args", "_bare", "_func", "_kwargs", "_resonate", "_tags", "_target", "_timeout_ms", "_version")

    def __init__(
        self,
        resonate: Resonate,
        label: str,
        func: Function | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        type_: Any,
    ) -> None:
        super().__init__(label, type_)
        self._resonate = resonate
        self._func = func
        self._args = args
        self._kwargs = kwargs
        own = None if isinstance(func, str) else func.timeout_ms
        self._timeout_ms = ONE_YEAR_MS if own is None else own
        self._version: int | None = None
        self._bare = False
        self._tags: dict[str, str] = {}
        self._target: str | None = None

    def timeout(self, timeout: float | timedelta) -> Self:
        """Set the deadline: so many seconds from the start. Default: what `@durable` says, else one year.

        Raises:
            InvalidArgument: it is negative or no duration.
        """
        self._timeout_ms = self._checked(to_ms, timeout)
        return self

    def version(self, version: int) -> Self:
        """Say which version of the function runs.

        Default: that of the function given. For a name, `run` takes the latest that is registered here and `rpc`
        leaves it to the worker.
        """
        self._version = self._checked(check_version, version)
        return self

    def tags(self, tags: Mapping[str, str]) -> Self:
        """Tag the promise, e.g. for `resonate.promises.search(tags=...)`. Tags of the protocol's own are added to them.

        Raises:
            InvalidArgument: a name or value is no string, or a name is the protocol's.
        """
        self._tags.update(self._checked(check_own_tags, tags))
        return self

    def target(self, target: str) -> Self:
        """Say who runs it: a group's name, or an address such as `poll://any@group`. Default: the own group."""
        self._target = self._checked(address, target)
        return self

    def _param(self, func: Function | str) -> Value:
        call = RemoteCall(func=func, args=self._args, kwargs=self._kwargs, version=self._version, bare=self._bare)
        return call.encode(self._resonate._codec)


class StartCall(RootCall[T]):
    """A root that is about to be started. Awaiting it starts it and waits for the result."""

    __slots__ = ("_id",)

    def __init__(self, resonate: Resonate, verb: str, id: str, *call: Any) -> None:
        func = call[0]
        name = func if isinstance(func, str) else func.name
        super().__init__(resonate, f"resonate.{verb}({id!r}, {name}, ...)", *call)
        self._id = id

    async def spawn(self) -> Handle[T]:
        """Start it and return a handle at once. The same id joins what runs already.

        Raises:
            ExecutionMismatch: what runs under this id is a call of something else.
        """
        self._use()
        return await self._start()

    async def _run(self) -> T:
        return await (await self._start())

    async def _start(self) -> Handle[T]:
        raise NotImplementedError

    def _create(self, worker: Worker, param: Value, target: str) -> PromiseCreate:
        lineage = dict.fromkeys(("resonate:origin", "resonate:branch", "resonate:parent"), self._id)
        return PromiseCreate(
            id=self._id,
            timeout_at=worker.connection.now() + self._timeout_ms,
            param=param,
            tags={**self._tags, **lineage, "resonate:scope": "global", "resonate:target": self._target or target},
        )

    def _handle(self, execution: Execution | None = None) -> Handle[T]:
        return Handle(self._id, self._type, self._resonate._worker_for, execution)

    def _check_same(self, promise: Promise, asked: Value) -> None:
        """Whoever uses an id a second time means the same call."""
        if promise.param == asked:
            return
        codec = self._resonate._codec
        wanted = codec.decode_call(asked)
        requested = f"{wanted.func!r} (version {wanted.version})"
        try:
            found = codec.decode_call(promise.param)
        except DecodeError:
            raise ExecutionMismatch(self._id, "no function: a bare promise", requested) from None
        # A name alone means whatever version runs.
        any_version = isinstance(self._func, str) and self._version is None
        if found.func != wanted.func or not (any_version or (found.version or 1) == wanted.version):
            raise ExecutionMismatch(self._id, f"{found.func!r} (version {found.version or 1})", requested)
        if (found.positional, found.kwargs) != (wanted.positional, wanted.kwargs):
            message = f"{self._label} joins an execution with other arguments; those of the first call stand"
            filename, line = self._made_at
            warnings.warn_explicit(message, UserWarning, filename, line)


class RunCall(StartCall[T]):
    """`resonate.run(...)`: runs in this process if it is new; recovers in any process of the group."""

    __slots__ = ()

    def returns(self, type_: TypeForm[U]) -> RunCall[U]:
        """Say which type the result is rebuilt as, live and on a replay. Default: the function's annotation."""
        return cast("RunCall[U]", self._typed(type_))

    async def _start(self) -> Handle[T]:
        resonate = self._resonate
        worker = resonate._worker_for(self._label, "ctx.run()")
        assert not isinstance(self._func, str)
        function = self._func if self._version is None else resonate._registry.get(self._func.name, self._version)
        param = self._param(function)
        # A client whose first function was registered just now: what runs here may be sent for by way of its group.
        await worker.working()
        target = worker.identity.preferred
        promise, execution = await worker.acquisition.start(self._create(worker, param, target))
        self._check_same(promise, param)
        return self._handle(execution)


class RpcCall(StartCall[T]):
    """`resonate.rpc(...)`: runs on any worker of the target."""

    __slots__ = ()

    def returns(self, type_: TypeForm[U]) -> RpcCall[U]:
        """Say which type the result is rebuilt as, live and on a replay. Default: the function's annotation."""
        return cast("RpcCall[U]", self._typed(type_))

    def bare_args(self) -> Self:
        """Record the arguments as functions of the Rust and Go SDKs expect them.

        No argument is recorded as null, a single one by itself instead of in an array, several in an array as ever. A
        Rust function without parameters needs this too: it does not accept the empty array that is sent without it.
        """
        self._configure()._bare = True
        return self

    async def _start(self) -> Handle[T]:
        worker = self._resonate._worker_for(self._label, "ctx.rpc()")
        param = self._param(self._func)
        request = self._create(worker, param, self._resonate._settings.own_group)
        promise = promise_of(request, await worker.ask(request), self._id)
        self._check_same(promise, param)
        return self._handle()
