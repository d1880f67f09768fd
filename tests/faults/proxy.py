"""`Proxy`: stands between clients and a server on real sockets, and does to their connections what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Self

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, Event, create_task_group
from anyio.abc import SocketAttribute, SocketStream
from attrs import define, field


class Mode(Enum):
    """What happens to what is sent through it."""

    PASS = "it arrives"
    REFUSE = "each connection is closed as soon as it is opened"
    HOLE = "connections are open, and nothing arrives"
    CUT_BEFORE = "a connection is cut when a request is sent on it"
    CUT_AFTER = "a connection is cut when an answer is sent on it"


@define(eq=False)
class Proxy:
    """A proxy to a server of this machine.

    Attributes:
        to: the port of the server.
        mode: what happens from now on, also to connections that are open.
        port: where it is reached.
        opened: how many connections it has taken.
    """

    to: int
    mode: Mode = Mode.PASS
    port: int = field(default=0, init=False)
    opened: int = field(default=0, init=False)
    _pairs: set[_Pair] = field(factory=set, init=False)
    _left: int = field(default=0, init=False)
    _done: Event = field(factory=Event, init=False)

    @classmethod
    @asynccontextmanager
    async def open(cls, to: int) -> AsyncIterator[Self]:
        """A proxy to that port, while the block lasts."""
        proxy = cls(to)
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, create_task_group() as tasks:
            proxy.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - of anyio, not of Django
            tasks.start_soon(listener.serve, proxy._serve)
            yield proxy
            tasks.cancel_scope.cancel()

    @property
    def url(self) -> str:
        """Where it is reached, as an address."""
        return f"http://127.0.0.1:{self.port}"

    async def spoil(self, mode: Mode, times: int) -> None:
        """Do that to what is sent, until it has happened so many times; then cut what is open, and let all pass."""
        self.mode, self._left, self._done = mode, times, Event()
        if mode is Mode.REFUSE:
            # Over what is open, clients might do all that they have to, and open nothing more.
            await self.cut()
        await self._done.wait()
        self.mode = Mode.PASS
        await self.cut()

    def spoilt(self) -> None:
        """It has happened once."""
        self._left -= 1
        if self._left <= 0:
            self._done.set()

    async def cut(self) -> None:
        """Cut every connection that is open."""
        for pair in list(self._pairs):
            await pair.cut()

    async def _serve(self, client: SocketStream) -> None:
        self.opened += 1
        async with client:
            if self.mode is Mode.REFUSE:
                return self.spoilt()
            try:
                server = await anyio.connect_tcp("127.0.0.1", self.to)
            except OSError:
                return None
            pair = _Pair(self, client, server)
            self._pairs.add(pair)
            try:
                await pair.run()
            finally:
                self._pairs.remove(pair)


@define(eq=False)
class _Pair:
    """A connection of a client, and the one to the server that belongs to it."""

    _proxy: Proxy
    _client: SocketStream
    _server: SocketStream

    async def run(self) -> None:
        async with self._server, create_task_group() as tasks:
            tasks.start_soon(self._forward, self._client, self._server, Mode.CUT_BEFORE)
            await self._forward(self._server, self._client, Mode.CUT_AFTER)
            tasks.cancel_scope.cancel()

    async def cut(self) -> None:
        await anyio.aclose_forcefully(self._client)
        await anyio.aclose_forcefully(self._server)

    async def _forward(self, source: SocketStream, target: SocketStream, fatal: Mode) -> None:
        try:
            while data := await source.receive():
                if self._proxy.mode is fatal:
                    self._proxy.spoilt()
                    return await self.cut()
                if self._proxy.mode is Mode.HOLE:
                    self._proxy.spoilt()
                else:
                    await target.send(data)
        except (BrokenResourceError, ClosedResourceError, EndOfStream):
            await self.cut()
