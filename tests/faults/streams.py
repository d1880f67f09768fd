"""What the weather does to streams of messages."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, Final, Self

import httpx
from anyio import CancelScope, fail_after, move_on_after, sleep, sleep_forever
from attrs import define, field

from .bodies import respond
from .weather import Trick, Trouble

_END: Final = b"\n\n"

_NOISE: Final = (
    b": still here\n\n",
    b"retry: 1\n\n",
    b"id: 7\nevent: ping\n\n",
    b"data\n\n",
    b"data: no JSON\n\n",
    b'data: {"kind":"unheard","head":{},"data":{}}\n\n',
    b'event: other\r\ndata: {"kind":"execute","head":{},"data":{}}\r\n\r\n',
)
"""What may stand between messages: nothing of it is one."""


async def open_stream(
    inner: httpx.AsyncBaseTransport, request: httpx.Request, trouble: Trouble | None, opened: Callable[[Line], None]
) -> httpx.Response:
    """Open a stream of messages, to which `trouble` happens. `opened` is told of it."""
    match None if trouble is None else trouble.what:
        case Trick.REFUSED:
            msg = "connection refused"
            raise httpx.ConnectError(msg, request=request)
        case Trick.FULL:
            return respond(503, f"Poll registration at capacity for {request.headers.get('authorization')}")
        case Trick.PAGE:
            return respond(200, f"<html>{request.headers.get('authorization')}</html>", kind="text/html")
        case Trick.UNANSWERED:
            await _wait_in_vain(request)
        case _:
            pass
    response = await inner.handle_async_request(request)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    line = Line(response.stream)
    opened(line)
    stream = line if trouble is None else _Spoilt(line, request, trouble)
    return httpx.Response(response.status_code, headers=response.headers, stream=stream)


async def _wait_in_vain(request: httpx.Request) -> None:
    seconds = request.extensions.get("timeout", {}).get("read")
    try:
        with fail_after(math.inf if seconds is None else seconds):
            await sleep_forever()
    except TimeoutError:
        msg = "no answer came in time"
        raise httpx.ReadTimeout(msg, request=request) from None


@define(eq=False)
class Line(httpx.AsyncByteStream):
    """A stream that can be cut while somebody waits for it."""

    _inner: httpx.AsyncByteStream
    _chunks: AsyncIterator[bytes] = field(init=False)
    _waiting: CancelScope = field(factory=CancelScope, init=False)
    _is_cut: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._chunks = aiter(self._inner)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with CancelScope() as self._waiting:
            if not self._is_cut:
                return await anext(self._chunks)
        msg = "connection reset by peer"
        raise httpx.ReadError(msg)

    def cut(self) -> None:
        """Nothing more arrives, and whoever waits is told."""
        self._is_cut = True
        self._waiting.cancel()

    async def aclose(self) -> None:
        if isinstance(self._chunks, AsyncGenerator):
            await self._chunks.aclose()
        await self._inner.aclose()


@define(eq=False)
class _Spoilt(httpx.AsyncByteStream):
    """A stream to which a trick happens."""

    _inner: Line
    _request: httpx.Request
    _trouble: Trouble
    _read: bytes = field(default=b"", init=False)
    _earlier: list[bytes] = field(factory=list, init=False)
    _ready: deque[bytes | Exception | None] = field(factory=deque, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._ready:
            await self._read_on()
        match self._ready.popleft():
            case None:
                raise StopAsyncIteration
            case Exception() as failure:
                raise failure
            case piece:
                return piece

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _read_on(self) -> None:
        if self._trouble.what is Trick.STALLED:
            with move_on_after(self._trouble.seconds):
                async for _ in self._inner:
                    pass
            self._ready.append(self._cut())
            return
        chunk = await anext(self._inner, None)
        if chunk is None:
            self._ready.append(None)
            return
        *frames, self._read = (self._read + chunk).split(_END)
        for frame in frames:
            if self._trouble.what is Trick.LATE:
                await sleep(self._trouble.seconds)
            self._ready += self._instead_of(frame + _END)

    def _cut(self) -> httpx.ReadError:
        return httpx.ReadError("connection reset by peer", request=self._request)

    def _instead_of(self, frame: bytes) -> Sequence[bytes | Exception | None]:
        """What arrives instead of one message; None is the end."""
        earlier = tuple(self._earlier)
        self._earlier.append(frame)
        instead: dict[Trick, Sequence[bytes | Exception | None]] = {
            Trick.ENDED: [frame, None],
            Trick.TORN: [frame[: len(frame) // 2], self._cut()],
            Trick.REPEATED: [frame * 2, frame],
            Trick.STALE: [frame, *earlier],
            Trick.CRUMBLED: [bytes([byte]) for byte in frame],
            Trick.NOISY: [
                *_NOISE,
                f"data: {self._request.headers.get('authorization')}\n\n".encode(),
                frame.replace(b"\n", b"\r\n"),
            ],
            Trick.FORGED: [*_lies(frame), frame],
        }
        assert isinstance(self._trouble.what, Trick)
        return instead.get(self._trouble.what, [frame])


def _lies(frame: bytes) -> list[bytes]:
    """Messages that a server might send that has forgotten something, or speaks to somebody else."""
    if not frame.startswith(b"data: "):
        return []
    message = json.loads(frame.removeprefix(b"data: "))
    if message["kind"] == "execute":
        task = message["data"]["task"]
        others = [{**task, "version": task["version"] + step} for step in (-1, 1, 7)]
        return [_frame("execute", {"task": each}) for each in (*others, {**task, "id": "nobody"})]
    promise = message["data"]["promise"]
    unsettled = {name: promise[name] for name in promise if name != "settledAt"}
    pending = {**unsettled, "state": "pending", "value": {}}
    return [_frame("unblock", {"promise": each}) for each in (pending, {**promise, "id": "nobody"})]


def _frame(kind: str, data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"kind": kind, "head": {}, "data": data}).encode() + _END
