"""Requests about promises that several parts of the worker and the client make, and what the answers mean."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Final, TypeAlias

from .._errors import NotFound, RequestError
from .._finished import as_call
from .._history import descendants_of
from .._ids import SEPARATOR, below, origin_of, shortened_below
from .._protocol import Promise, PromiseGet, PromiseSearch, PromiseState, Request, Response

Send: TypeAlias = Callable[[Request], Awaitable[Response]]
"""A function that sends a request to the server and returns the answer."""

MAY_NOT_SEARCH: Final = frozenset({403, 501})
"""Statuses of servers that allow no searches, or none with a token that is restricted to a prefix."""

_FIRST_PAGE: Final = 8
_LARGEST_PAGE: Final = 1000
_GROWTH: Final = 8
_BEHIND: Final = chr(ord(SEPARATOR) + 1)
"""Behind an id, this sorts after everything below that id, and before every id that begins differently."""


def refusal(request: Request, response: Response) -> RequestError:
    """Return the error for an answer that the sender of the request cannot handle."""
    return RequestError(request.kind, response.status, response.error or "")


def promise_of(request: Request, response: Response, id: str) -> Promise:
    """Return the promise in an answer.

    Raises:
        NotFound: the status is 404.
        RequestError: the server has refused the request.
    """
    if response.status == 404:
        raise NotFound("promise", id)  # noqa: EM101 - the kind of thing, not a message
    if response.promise is None or response.status != 200:
        raise refusal(request, response)
    return as_call(response.promise)


async def get_promise(send: Send, id: str) -> Promise:
    """Return the record of `id`.

    Raises:
        NotFound: there is no such promise.
    """
    request = PromiseGet(id=id)
    return promise_of(request, await send(request), id)


async def scan(send: Send, start: str, expected: int = 0) -> AsyncIterator[Promise]:
    """Return every record whose id starts with `start`, in the order of ids: one range scan, a page at a time.

    The protocol has no upper end of a range, so the last page contains records outside it. To keep these few, the first
    page is small and the next ones grow.

    Args:
        send: sends the requests.
        start: the beginning of the ids.
        expected: the least number of records.
    """
    cursor: str | None = start
    page = _FIRST_PAGE
    while cursor is not None:
        request = PromiseSearch(cursor=cursor, limit=min(expected + page, _LARGEST_PAGE))
        expected, page = 0, page * _GROWTH
        response = await send(request)
        if response.status != 200:
            raise refusal(request, response)
        for record in response.promises:
            if not record.id.startswith(start):
                return
            yield as_call(record)
        cursor = response.cursor


async def frontier(send: Send, start: str, expected: int = 0) -> AsyncIterator[Promise]:
    """Return the records whose ids start with `start`, without those that no replay of the caller asks for.

    These are the records below a call that has ended, whose outcome is all that counts, and below a call that runs
    elsewhere. A cancelled call is an exception: who cancelled it may have died before the calls below were cancelled.

    Pages that end below such a call are followed by one that begins behind everything below it. They are small where
    little of the last one was wanted.

    Args:
        send: sends the requests.
        start: the beginning of the ids.
        expected: the least number of records.
    """
    closed: set[str] = set()
    jumped: set[str] = set()
    cursor: str | None = start
    page, size = _FIRST_PAGE, expected + _FIRST_PAGE
    while cursor is not None:
        request = PromiseSearch(cursor=cursor, limit=min(size, _LARGEST_PAGE))
        response = await send(request)
        if response.status != 200:
            raise refusal(request, response)
        wanted, below_closed = 0, ""
        for record in response.promises:
            if not record.id.startswith(start):
                return
            below_closed = _closed_above(record.id, len(start), closed)
            if below_closed:
                continue
            wanted += 1
            if _is_closed(record):
                closed.add(record.id)
            yield record
        cursor = response.cursor
        if cursor is not None and below_closed and below_closed not in jumped:
            # Once for each call: if the server does not sort by bytes, this may lead back.
            cursor = below_closed + _BEHIND
            jumped.add(below_closed)
        expected = max(expected - wanted, 0)
        if 2 * wanted < len(response.promises):
            page = _FIRST_PAGE
            size = page * max(wanted, 1)
        else:
            page = page if expected else page * _GROWTH
            size = expected + page


def _is_closed(record: Promise) -> bool:
    """Return whether nothing below `record` concerns the execution that it belongs to."""
    if record.pending:
        return record.target is not None
    return record.state is not PromiseState.CANCELED


def _closed_above(id: str, start: int, closed: Collection[str]) -> str:
    """Return the id in `closed` that `id` is below, the nearest to the root, or an empty string.

    Args:
        id: the id of a record.
        start: the length of the beginning that all ids share.
        closed: the ids.
    """
    end = id.find(SEPARATOR, start)
    while end >= 0:
        if id[:end] in closed:
            return id[:end]
        end = id.find(SEPARATOR, end + 1)
    return ""


async def descendants(send: Send, id: str, separators: Sequence[str]) -> list[Promise]:
    """Return the records of all calls below `id`, in the order of ids, without detached calls and those below them.

    Args:
        send: sends the requests.
        id: the call at the top.
        separators: the separators that may follow the id of a root; that of this client first.
    """
    starts = {below(id, separator): None for separator in separators}
    origin = origin_of(id, separators[0])
    if origin != id:
        # Ids that would be too long are shortened, and then do not start with the id of their parent.
        starts[shortened_below(origin, separators[0])] = None
    return descendants_of(id, [record for start in starts async for record in scan(send, start)])
