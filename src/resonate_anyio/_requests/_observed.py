"""`ObservedConnection`: a connection that tells observers of its requests. It is there only if there are observers.

Events of requests that a thread sends (heartbeats) are made on the event loop, soon after.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

from anyio.lowlevel import current_token
from attrs import define, field

from .._concurrency._tasks import call_in_loop
from .._observe import RequestAnswered, RequestRetried, RequestSent, RequestUnanswered
from .._protocol import Request, Response, TaskCreate
from ..abc import Connection, Dialect

if TYPE_CHECKING:
    from weakref import ReferenceType

    from .._observe import Observers


@define(eq=False, repr=False)
class _Sent:
    """A request that was sent, once or more often.

    Attributes:
        request: a reference to it, which does not keep it in memory.
        number: which request of the worker it is.
        kind: the operation.
        about: the promise, task or schedule that it is about, or None.
        attempt: how often it was sent.
    """

    request: ReferenceType[Request]
    number: int
    kind: str
    about: str | None
    attempt: int = field(default=0, init=False)


class ObservedConnection(Connection):
    """See the module's docstring.

    Args:
        inner: the connection that sends the requests.
        observers: the observers of the worker.
    """

    def __init__(self, inner: Connection, observers: Observers) -> None:
        self._inner = inner
        self._observers = observers
        self._token = current_token()
        self._asked: dict[int, _Sent] = {}
        self._sent = 0
        self.messages = inner.messages
        self.keeps_leases = inner.keeps_leases
        self.clock_check = inner.clock_check
        self.recheck = inner.recheck
        send = inner.blocking_request
        self.blocking_request = None if send is None else partial(self._request_from_thread, send)

    @property
    def dialect(self) -> Dialect:
        return self._inner.dialect

    def now(self) -> int:
        return self._inner.now()

    def elapsed(self) -> float:
        return self._inner.elapsed()

    async def request(self, request: Request) -> Response:
        return await self._observed(request, None)

    async def request_within(self, request: Request, seconds: float) -> Response:
        return await self._observed(request, seconds)

    async def _observed(self, request: Request, seconds: float | None) -> Response:
        asked, since = self._tell_sent(request), self.elapsed()
        try:
            if seconds is None:
                response = await self._inner.request(request)
            else:
                response = await self._inner.request_within(request, seconds)
        except BaseException as exc:
            self._tell_unanswered(asked, exc, self.elapsed() - since)
            raise
        self._tell_answered(asked, response.status, self.elapsed() - since)
        return response

    def _request_from_thread(self, send: Callable[[Request], Response], request: Request) -> Response:
        since, asked = self.elapsed(), list[_Sent]()
        self._soon(lambda: asked.append(self._tell_sent(request)))
        try:
            response = send(request)
        except BaseException as exc:
            taken, error = self.elapsed() - since, exc
            self._soon(lambda: self._tell_unanswered(asked[0], error, taken))
            raise
        taken, status = self.elapsed() - since, response.status
        self._soon(lambda: self._tell_answered(asked[0], status, taken))
        return response

    def _soon(self, func: Callable[[], object]) -> None:
        # A loop that is closed has no observers any more.
        with suppress(RuntimeError):
            call_in_loop(self._token.native_token, func)

    def _tell_sent(self, request: Request) -> _Sent:
        asked = self._asked_of(request)
        asked.attempt += 1
        number, kind, about = asked.number, asked.kind, asked.about
        if asked.attempt == 1:
            self._observers.tell(RequestSent(number=number, kind=kind, id=about))
        else:
            self._observers.tell(RequestRetried(number=number, kind=kind, id=about, attempt=asked.attempt))
        return asked

    def _tell_answered(self, asked: _Sent, status: int, taken: float) -> None:
        self._observers.tell(
            RequestAnswered(number=asked.number, kind=asked.kind, id=asked.about, status=status, duration=taken)
        )

    def _tell_unanswered(self, asked: _Sent, error: BaseException, taken: float) -> None:
        shown = error if isinstance(error, Exception) else None
        self._observers.tell(
            RequestUnanswered(number=asked.number, kind=asked.kind, id=asked.about, error=shown, duration=taken)
        )

    def _asked_of(self, request: Request) -> _Sent:
        """Return what is known of a request. The same object is sent again when it was not answered."""
        key = id(request)
        asked = self._asked.get(key)
        if asked is None or asked.request() is not request:
            self._sent += 1
            gone = ref(request, partial(self._forget, key))
            asked = self._asked[key] = _Sent(gone, self._sent, request.kind, _about(request))
        return asked

    def _forget(self, key: int, gone: ReferenceType[Request]) -> None:
        asked = self._asked.get(key)
        if asked is not None and asked.request is gone:
            del self._asked[key]


def _about(request: Request) -> str | None:
    """Return the id of what a request is about."""
    if isinstance(request, TaskCreate):
        return request.action.id
    for name in ("id", "awaited"):
        if isinstance(found := getattr(request, name, None), str):
            return found
    return None
