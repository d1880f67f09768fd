"""What the HTTP network needs of an HTTP library, which `_http` gives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from attrs import field, frozen


class NoAnswer(Exception):
    """An exchange broke off: no connection, no complete answer, or not in time. Its text says what happened.

    What the library raised is not chained to it: such texts may repeat what was sent.
    """


@frozen(kw_only=True)
class Reply:
    """A complete answer.

    Attributes:
        date: its `Date` header.
        location: where it redirects to, which is never followed.
    """

    status: int
    body: bytes = field(repr=False)
    date: str | None = None
    location: str | None = None


@frozen(kw_only=True)
class Stream:
    """An answer whose body is still coming in.

    Attributes:
        chunks: the body; reading it raises `NoAnswer` if it breaks off.
    """

    status: int
    content_type: str
    chunks: AsyncIterator[bytes]


class Wire(ABC):
    """A client of one server, with all options applied. Every method raises `NoAnswer`."""

    #: Whether `post_blocking` may be called.
    blocking: bool

    @abstractmethod
    async def post(self, body: bytes) -> Reply:
        """Send a request and read its answer. How long that may take is for the caller to limit."""

    @abstractmethod
    def post_blocking(self, body: bytes, timeout: float) -> Reply:
        """Do the same on a thread that may wait, without an event loop.

        Args:
            body: what to send.
            timeout: how many seconds may pass without progress.
        """

    @abstractmethod
    def stream(self, path: str) -> AbstractAsyncContextManager[Stream]:
        """Open an answer that never ends. What is silent is not timed out, but the peer is watched by the system."""
