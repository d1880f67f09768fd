"""`FaultyTransport`: an HTTP transport to which the weather happens.

It stands between an HTTP client and a transport that works, on any backend and in virtual time. What the server has
received it works on although nobody waits for the answer any more, as a server behind a socket would.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import httpx
from anyio import Event, fail_after, sleep
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from .bodies import respond
from .meter import Meter
from .streams import Line, open_stream
from .weather import STREAM, Call, Effect, Trouble, Weather, call

PAGE: Final = "<html><head><title>502 Bad Gateway</title></head><body>{}</body></html>"

_PREFERRED: Final = ("id", "awaited", "cursor")


def read_call(who: str, request: httpx.Request) -> Call:
    """What a request says."""
    if request.method == "GET":
        return call(who, STREAM, request.url.path)
    document = json.loads(request.content)
    return call(who, document["kind"], _subject(document["data"]))


def _subject(data: Mapping[str, Any]) -> str:
    """The id that a request is about: its own, or that of the first of what it is about."""
    if "action" in data and "id" not in data:
        return _subject(data["action"]["data"])
    named: list[str] = [data[name] for name in _PREFERRED if data.get(name)]
    return named[0] if named else ",".join(task["id"] for task in data.get("tasks", ()))


@define(eq=False)
class FaultyTransport(httpx.AsyncBaseTransport):
    """The transport of one client.

    Attributes:
        who: the pid of the client.
        plugged: whether there is a network at all.
    """

    who: str
    _inner: httpx.AsyncBaseTransport
    _weather: Weather
    _meter: Meter
    _tasks: TaskGroup
    plugged: bool = field(default=True, init=False)
    _lines: list[Line] = field(factory=list, init=False)
    _answers: dict[str, Answer] = field(factory=dict, init=False)

    def unplug(self) -> None:
        """Cut what is open, and refuse what is opened from now on."""
        self.plugged = False
        for line in self._lines:
            line.cut()
        self._lines.clear()

    def plug_in(self) -> None:
        """Undo `unplug`."""
        self.plugged = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        said = read_call(self.who, request)
        self._meter.calls.append(said)
        if not self.plugged:
            msg = "network is unreachable"
            raise httpx.ConnectError(msg, request=request)
        trouble = self._weather.strike(said)
        if said.kind == STREAM:
            return await open_stream(self._inner, request, trouble, self._lines.append)
        return await self._ask(request, Trouble(what=Effect.LATE) if trouble is None else trouble)

    async def _ask(self, request: httpx.Request, trouble: Trouble) -> httpx.Response:
        exchange = _Exchange(self._inner, request, trouble, self._answers)
        self._tasks.start_soon(exchange.run)
        try:
            with fail_after(read_timeout(request)):
                await exchange.over.wait()
        except TimeoutError:
            msg = "no answer came in time"
            raise httpx.ReadTimeout(msg, request=request) from None
        return exchange.result()


def read_timeout(request: httpx.Request) -> float:
    """How many seconds the client waits for the first byte of the answer."""
    seconds = request.extensions.get("timeout", {}).get("read")
    return math.inf if seconds is None else seconds


@define(eq=False)
class _Exchange:
    """A request and its answer. It goes on when nobody waits for it any more."""

    _inner: httpx.AsyncBaseTransport
    _request: httpx.Request
    _trouble: Trouble
    _answers: dict[str, Answer]
    over: Event = field(factory=Event, init=False)
    _answer: httpx.Response | None = field(default=None, init=False)
    _failure: httpx.TransportError | None = field(default=None, init=False)

    async def run(self) -> None:
        try:
            self._answer = await self._answered()
        except httpx.TransportError as exc:
            self._failure = exc
        finally:
            self.over.set()

    def result(self) -> httpx.Response:
        if self._failure is not None:
            raise self._failure
        assert self._answer is not None
        return self._answer

    async def _answered(self) -> httpx.Response:
        what, seconds = self._trouble.what, self._trouble.seconds
        assert isinstance(what, Effect)
        if what is Effect.SLOW:
            await sleep(seconds)
        answer = None if what.early else await self._applied()
        if what is Effect.TWICE:
            answer = await self._applied()
        if what is Effect.LATE and seconds:
            await sleep(seconds)
        return self._spoilt(what, answer if answer is None else self._exchanged(what, answer))

    def _exchanged(self, what: Effect, answer: Answer) -> Answer:
        """The answer, or that of the last request of this kind. All are remembered, whatever arrives of them."""
        kind = json.loads(self._request.content)["kind"]
        earlier = self._answers.get(kind, answer)
        self._answers[kind] = answer
        return earlier if what is Effect.MIXED_UP else answer

    async def _applied(self) -> Answer:
        """Let the server work on it."""
        request = httpx.Request(
            self._request.method,
            self._request.url,
            headers=self._request.headers,
            content=self._request.content,
            extensions={},
        )
        response = await self._inner.handle_async_request(request)
        try:
            return Answer(response.status_code, dict(response.headers), await response.aread())
        finally:
            await response.aclose()

    def _spoilt(self, what: Effect, answer: Answer | None) -> httpx.Response:
        request = self._request
        match what:
            case Effect.REFUSED | Effect.CUT_BEFORE | Effect.CUT_AFTER:
                raise _FAILURES[what](what.value, request=request)
            case Effect.PAGE_BEFORE | Effect.PAGE_AFTER:
                return respond(502, PAGE.format(_echo(request)), kind="text/html")
            case Effect.REDIRECTED:
                headers = {"location": f"https://login.example/?{_echo(request)}"}
                return respond(307, "", headers=headers)
            case Effect.ERROR_BEFORE | Effect.ERROR_AFTER:
                document = failed(json.loads(request.content), _echo(request))
                return respond(500, json.dumps(document), kind="application/json")
            case _:
                assert answer is not None
                return answer.spoilt(what, request)


_FAILURES: Final[dict[Effect, type[httpx.TransportError]]] = {
    Effect.REFUSED: httpx.ConnectError,
    Effect.CUT_BEFORE: httpx.WriteError,
    Effect.CUT_AFTER: httpx.RemoteProtocolError,
}


def _echo(request: httpx.Request) -> str:
    """What a server repeats of a request that thinks to be helpful: how it was authorised."""
    return str(request.headers.get("authorization", "nobody"))


def failed(asked: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The answer of a server that cannot use its database."""
    head = {"corrId": asked["head"]["corrId"], "status": 500, "version": asked["head"]["version"]}
    return {"kind": asked["kind"], "head": head, "data": f"Internal error: {reason}"}


@frozen
class Answer:
    """What the server has answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def spoilt(self, what: Effect, request: httpx.Request) -> httpx.Response:
        """What arrives of it."""
        half = self.body[: len(self.body) // 2]
        match what:
            case Effect.GARBAGE:
                return self._with(b"\x00\xff\xfe\x80" * 8 + _echo(request).encode())
            case Effect.MIXED_UP:
                document = json.loads(self.body)
                if document["head"]["corrId"] == json.loads(request.content)["head"]["corrId"]:
                    document["head"]["corrId"] = _echo(request)
                return self._with(json.dumps(document).encode())
            case Effect.OTHER_KIND:
                return self._with(json.dumps({**json.loads(self.body), "kind": _echo(request)}).encode())
            case Effect.TORN:
                msg = "the peer closed the connection without sending the complete body"
                return self._with(half, httpx.RemoteProtocolError(msg, request=request))
            case Effect.SHORT:
                return self._with(half)
            case _:
                return self._with(self.body)

    def _with(self, body: bytes, failure: Exception | None = None) -> httpx.Response:
        headers = {name: value for name, value in self.headers.items() if name != "content-length"}
        return respond(self.status, body, headers=headers, failure=failure)
