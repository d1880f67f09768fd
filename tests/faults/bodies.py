"""Bodies of answers that come in pieces, as they do over a connection.

They are iterators and not generators: whoever reads them may stop in the middle, and nothing of them is left behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Self

import httpx
from anyio.lowlevel import checkpoint
from attrs import define, field


@define(eq=False)
class Pieces(httpx.AsyncByteStream):
    """Pieces of a body, and then the failure that ends it, if one does."""

    _pieces: Iterable[bytes]
    _failure: Exception | None = None
    _left: deque[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = deque(self._pieces)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await checkpoint()
        if self._left:
            return self._left.popleft()
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration


def respond(
    status: int,
    body: bytes | str,
    *,
    headers: Mapping[str, str] | None = None,
    kind: str = "text/plain",
    failure: Exception | None = None,
) -> httpx.Response:
    """An answer with that body, which has not been read yet, or (`failure`) whose end cannot be read."""
    pieces: Iterable[bytes] = [body.encode() if isinstance(body, str) else body]
    return httpx.Response(
        status, headers={"content-type": kind} if headers is None else headers, stream=Pieces(pieces, failure)
    )
