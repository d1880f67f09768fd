"""Builders of calls from outside: they start roots, here or elsewhere, and schedule them."""

from __future__ import annotations

import warnings
from abc import ABC
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .._api._builder import Builder
from .._api._options import WithBareArgs, WithTarget, WithTimeout
from .._errors import DecodeError, ExecutionMismatch
from .._protocol import Promise, PromiseCreate, Value
from .._requests._queries import promise_of
from .._workflow._elsewhere import ONE_YEAR_MS
from ._checks import check_own_tags
from ._handle import Handle

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import TypeForm

    from .._functions._function import Function
    from .._worker._face import Face, LocalExecution
    from ._lifecycle import Lifecycle

T = TypeVar("T")
U = TypeVar("U")


class RootCall(Builder[T], WithTimeout, WithTarget, ABC):
    """The options of calls from outside, and the record that they make."""

    __slots__ = ("_args", "_bare", "_func", "_kwargs", "_resonate", "_tags", "_target", "_timeout_ms", "_version")

    def __init__(
        self,
        resonate: Lifecycle,
        label: str,
        func: Function | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        type_: Any,
    ) -> None:
        super().__init__(label, type_)
        self._describe(func, args, kwargs)
        self._resonate = resonate
        self._timeout_ms = None if isinstance(func, str) else func.timeout_ms
        self._tags: dict[str, str] = {}

    def tags(self, tags: Mapping[str, str]) -> Self:
        """Tag the promise, e.g. for `resonate.promises.search(tags=...)`, besides the tags of the protocol.

        Raises:
            InvalidArgument: a name or a value is not a string, or a name is the protocol's.
        """
        self._tags.update(self._checked(check_own_tags, tags))
        return self

    @property
    def _lifetime_ms(self) -> int:
        """How long the call may take, in milliseconds."""
        return ONE_YEAR_MS if self._timeout_ms is None else self._timeout_ms

    def _param(self, func: Function | str) -> Value:
        return self._encoded(func, self._resonate._codec)


class StartCall(RootCall[T]):
    """A root that is about to be started. Awaiting it starts it and waits for the result."""

    __slots__ = ("_id",)

    def __init__(self, resonate: Lifecycle, verb: str, id: str, *call: Any) -> None:
        func = call[0]
        name = func if isinstance(func, str) else func.name
        super().__init__(resonate, f"resonate.{verb}({id!r}, {name}, ...)", *call)
        self._id = id

    async def spawn(self) -> Handle[T]:
        """Start it and return a handle at once. If the id is in use, join that execution.

        Raises:
            ExecutionMismatch: the id belongs to a call of another function or version.
        """
        self._use()
        return await self._start()

    async def _run(self) -> T:
        return await (await self._start())

    async def _start(self) -> Handle[T]:
        raise NotImplementedError

    def _create(self, worker: Face, param: Value, target: str) -> PromiseCreate:
        lineage = dict.fromkeys(("resonate:origin", "resonate:branch", "resonate:parent"), self._id)
        return PromiseCreate(
            id=self._id,
            timeout_at=worker.now() + self._lifetime_ms,
            param=param,
            tags={**self._tags, **lineage, "resonate:scope": "global", "resonate:target": self._target or target},
        )

    def _handle(self, local: LocalExecution | None = None) -> Handle[T]:
        return Handle(self._id, self._type, self._resonate._worker_for, local)

    def _check_same(self, promise: Promise, asked: Value) -> None:
        """Raise or warn if the id belongs to a call other than the one that was asked for."""
        if promise.param == asked:
            return
        codec = self._resonate._codec
        wanted = codec.decode_call(asked)
        requested = f"{wanted.func!r} (version {wanted.version})"
        try:
            found = codec.decode_call(promise.param)
        except DecodeError:
            raise ExecutionMismatch(self._id, "no function: a bare promise", requested) from None
        # A name without a version means any version.
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
        # If the first function was registered just now, this process is about to join its group.
        target = await worker.own_address()
        promise, local = await worker.start(self._create(worker, param, target))
        self._check_same(promise, param)
        return self._handle(local)


class RpcCall(StartCall[T], WithBareArgs):
    """`resonate.rpc(...)`: runs on any worker of the target."""

    __slots__ = ()

    def returns(self, type_: TypeForm[U]) -> RpcCall[U]:
        """Say which type the result is rebuilt as, live and on a replay. Default: the function's annotation."""
        return cast("RpcCall[U]", self._typed(type_))

    async def _start(self) -> Handle[T]:
        worker = self._resonate._worker_for(self._label, "ctx.rpc()")
        param = self._param(self._func)
        request = self._create(worker, param, self._resonate._settings.own_group)
        promise = promise_of(request, await worker.ask(request), self._id)
        self._check_same(promise, param)
        return self._handle()
