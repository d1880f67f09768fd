"""The interface between the HTTP network and an HTTP library. `_http` implements it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from attrs import field, frozen

from .._values import ValueObject


class NoAnswer(Exception):
    """An exchange failed: there was no connection, or no complete answer in time. The text says why.

    The error of the library is not chained to this one, because its text may repeat what was sent.
    """


@frozen(kw_only=True, eq=False, repr=False)
class Reply(ValueObject):
    """A complete answer.

    Attributes:
        date: its `Date` header.
        location: the address that it redirects to. Redirects are not followed.
    """

    status: int
    body: bytes = field(repr=False)
    date: str | None = None
    location: str | None = None


@frozen(kw_only=True, eq=False, repr=False)
class Stream(ValueObject):
    """An answer whose body is still being received.

    Attributes:
        chunks: the body; reading it raises `NoAnswer` if the connection breaks.
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
        """Send a request and return its answer. The caller limits the time."""

    @abstractmethod
    def post_blocking(self, body: bytes, timeout: float) -> Reply:
        """Do the same from a worker thread, without an event loop.

        Args:
            body: the bytes to send.
            timeout: the number of seconds that may pass without progress.
        """

    @abstractmethod
    def stream(self, path: str) -> AbstractAsyncContextManager[Stream]:
        """Open an answer that never ends. Silence is not a timeout; TCP keepalive notices a dead peer."""
