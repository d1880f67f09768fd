"""`resonate.promises`: durable promises by hand, for people, webhooks and other programs to settle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import define, field, frozen

from .._codec import Codec
from .._errors import DecodeError, NotFound
from .._finished import as_call
from .._protocol import EMPTY, Promise, PromiseCreate, PromiseSearch, PromiseState, Value
from .._requests._queries import get_promise, promise_of
from .._time import from_ms
from .._values import ValueObject
from ._checks import check_deadline, check_id, check_settlement, check_state, check_tags

if TYPE_CHECKING:
    from .._worker._face import Face

State: TypeAlias = Literal["pending", "resolved", "rejected", "rejected_canceled", "rejected_timedout"]
Settlement: TypeAlias = Literal["resolved", "rejected", "rejected_canceled"]

_EXTERNAL: Final = "resonate:external"


@frozen(kw_only=True, eq=False, repr=False)
class DurablePromise(ValueObject):
    """A promise as it is recorded.

    Attributes:
        id: its id, in full.
        state: `pending`, or how it was settled.
        param: what it was created with, as JSON gives it back; for a call, the function and its arguments.
        value: what it was settled with, as JSON gives it back; an error is a dict with `name` and `message`.
        tags: its tags, those of the protocol included.
        timeout_at: its deadline.
        created_at: when it was created.
        settled_at: when it was settled, or None.
        settled_here: whether the call that returned this has settled it (`settle`, `resolve`, `reject`, `cancel`).
            False: it had been settled before, or the call does not settle promises.
    """

    id: str
    state: State
    param: Any
    value: Any
    tags: Mapping[str, str]
    timeout_at: datetime
    created_at: datetime
    settled_at: datetime | None = None
    settled_here: bool = field(default=False, eq=False)


def public(record: Promise, codec: Codec, *, settled_here: bool = False) -> DurablePromise:
    """Return a record as users see it."""
    return DurablePromise(
        id=record.id,
        state=record.state.value,
        param=_readable(record.param, codec),
        value=_readable(record.value, codec),
        tags=dict(record.tags),
        timeout_at=from_ms(record.timeout_at),
        created_at=from_ms(record.created_at),
        settled_at=None if record.settled_at is None else from_ms(record.settled_at),
        settled_here=settled_here,
    )


def _readable(value: Value, codec: Codec) -> Any:
    # Other programs may record values that are not JSON. They are shown unchanged.
    try:
        return codec.decode(value)
    except DecodeError:
        return value.data


def _not_yet(id: str) -> str:
    return (
        f"it may not have been created yet. A workflow that will ask for it takes one that was created ahead: "
        f"await resonate.promises.create({id!r}, timeout_at), then settle that. Ids are taken as they are here, "
        f"without the prefix of RESONATE_PREFIX"
    )


@define(eq=False, repr=False)
class Promises:
    """Durable promises by hand. Ids are taken as they are: `RESONATE_PREFIX` is not applied."""

    _codec: Codec
    _worker: Callable[[str, str | None], Face]

    async def create(
        self,
        id: str,
        timeout_at: datetime | int,
        param: object = None,
        tags: Mapping[str, str] | None = None,
    ) -> DurablePromise:
        """Create a promise, or return the one that has the id already, whatever it was created with.

        A promise that a workflow will ask for can be created, and settled, ahead: under the id
        `{workflow's id}.approval` for `ctx.promise().named("approval")`, which then takes it as it is, with its
        deadline and `param`. (Where the server joins ids by a colon, the id is `{workflow's id}:approval`, and promises
        are tagged `resonate:external` when they are created: the server lets no call wait for them otherwise.)

        Args:
            id: a non-empty string.
            timeout_at: the deadline: an aware datetime, or epoch milliseconds.
            param: recorded with the promise, for the program or person that will settle it.
            tags: names and values, both strings.

        Raises:
            InvalidArgument: an argument is unusable.
            EncodeError: `param` cannot be turned into JSON.
        """
        check_id(id, "promise")
        worker = self._worker("resonate.promises.create()", "ctx.promise()")
        # Servers that join ids by colons refuse waits for a promise unless a tag says that it is settled from outside.
        own = {_EXTERNAL: "true"} if worker.separator == ":" else {}
        request = PromiseCreate(
            id=id, timeout_at=check_deadline(timeout_at), param=self._encode(param), tags={**own, **check_tags(tags)}
        )
        response = await worker.ask(request)
        return self._public(promise_of(request, response, id))

    async def get(self, id: str) -> DurablePromise:
        """Return the promise.

        Raises:
            NotFound: it does not exist.
        """
        check_id(id, "promise")
        return self._public(await get_promise(self._worker("resonate.promises.get()", "ctx.promise()").ask, id))

    async def settle(self, id: str, state: Settlement, value: object = None) -> DurablePromise:
        """Settle a promise, or return it as it was settled before: the first settlement stands.

        `settled_here` of the returned promise says which of the two happened. If the promise belongs to an execution,
        its code in this process ends, and all pending calls below it are cancelled.

        Args:
            id: the promise's id.
            state: `resolved`, `rejected` or `rejected_canceled`.
            value: what it is settled with. An exception is recorded as the error that a function would fail with.

        Raises:
            NotFound: it does not exist, or not yet; the message says what to do.
            InvalidArgument: the state is not one of the three.
            EncodeError: the value cannot be turned into JSON.
        """
        return await self._settle("resonate.promises.settle()", id, check_settlement(state), value)

    async def resolve(self, id: str, value: object = None) -> DurablePromise:
        """Settle a promise with a value. The first settlement stands: see `settle`."""
        return await self._settle("resonate.promises.resolve()", id, PromiseState.RESOLVED, value)

    async def reject(self, id: str, error: object = None) -> DurablePromise:
        """Settle a promise with an error: an exception or a JSON value. The first settlement stands: see `settle`."""
        return await self._settle("resonate.promises.reject()", id, PromiseState.REJECTED, error)

    async def cancel(self, id: str) -> DurablePromise:
        """Cancel a promise: those that wait for it get `DurableCancelledError`. A running execution of that id ends.

        The first settlement stands: see `settle`.
        """
        return await self._settle("resonate.promises.cancel()", id, PromiseState.CANCELED, None)

    async def _settle(self, call: str, id: str, state: PromiseState, value: object) -> DurablePromise:
        check_id(id, "promise")
        encoded = EMPTY if state is PromiseState.CANCELED and value is None else self._encode(value)
        worker = self._worker(call, "ctx.promise()")
        try:
            record, here = await worker.settle(id, state, encoded)
        except NotFound as exc:
            if exc.id != id:
                raise
            raise NotFound("promise", id, _not_yet(id)) from None  # noqa: EM101 - the kind of thing, not a message
        return public(record, self._codec, settled_here=here)

    async def search(
        self, *, state: State | None = None, tags: Mapping[str, str] | None = None
    ) -> AsyncIterator[DurablePromise]:
        """Iterate over all promises in the order of their ids, or those of one state or with all of these tags.

        Promises are returned as stored. On some servers one whose deadline has passed is `pending` until it is read by
        its id.
        """
        worker = self._worker("resonate.promises.search()", "ctx.promise()")
        wanted = None if state is None else check_state(state)
        tags = check_tags(tags)
        cursor: str | None = None
        while True:
            response = await worker.ask(PromiseSearch(state=wanted, tags=tags, cursor=cursor))
            for record in response.promises:
                yield self._public(as_call(record))
            cursor = response.cursor
            if cursor is None:
                return

    def _encode(self, value: object) -> Value:
        if isinstance(value, Exception):
            return self._codec.encode_error(value)
        return self._codec.encode(value)

    def _public(self, record: Promise) -> DurablePromise:
        return public(record, self._codec)
