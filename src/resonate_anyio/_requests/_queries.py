"""Requests about promises that several parts of the engine make, and what their answers mean."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from .._errors import NotFound, RequestError
from .._history import descendants_of
from .._ids import below, origin_of, shortened_below
from .._protocol import Promise, PromiseGet, PromiseSearch, Request, Response

Ask: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Whatever carries a request to the server."""

MAY_NOT_SEARCH: Final = frozenset({403, 501})
"""What servers answer that allow no searches, or not with a token that is restricted to a prefix."""

_FIRST_PAGE: Final = 8
_LARGEST_PAGE: Final = 1000
_GROWTH: Final = 8


def refusal(request: Request, response: Response) -> RequestError:
    """The error that an answer is which the requester cannot handle."""
    return RequestError(request.kind, response.status, response.error or "")


def promise_of(request: Request, response: Response, id: str) -> Promise:
    """The promise of an answer.

    Raises:
        NotFound: 404.
        RequestError: any other refusal.
    """
    if response.status == 404:
        raise NotFound("promise", id)  # noqa: EM101 - the kind of thing, not a message
    if response.promise is None or response.status != 200:
        raise refusal(request, response)
    return response.promise


async def get_promise(ask: Ask, id: str) -> Promise:
    """The record of `id`.

    Raises:
        NotFound: there is none.
    """
    request = PromiseGet(id=id)
    return promise_of(request, await ask(request), id)


async def scan(ask: Ask, start: str, expected: int = 0) -> AsyncIterator[Promise]:
    """Every record whose id starts with `start`, in id order: one range scan, a page at a time.

    The protocol knows no upper end of a range: the last page has records that are not asked for. So the first page is
    small, and the next ones grow.

    Args:
        ask: carries the requests.
        start: what the ids start with.
        expected: how many there are at least.
    """
    cursor: str | None = start
    page = _FIRST_PAGE
    while cursor is not None:
        request = PromiseSearch(cursor=cursor, limit=min(expected + page, _LARGEST_PAGE))
        expected, page = 0, page * _GROWTH
        response = await ask(request)
        if response.status != 200:
            raise refusal(request, response)
        for record in response.promises:
            if not record.id.startswith(start):
                return
            yield record
        cursor = response.cursor


async def descendants(ask: Ask, id: str, separators: Sequence[str]) -> list[Promise]:
    """What `id` has called, directly or not, in id order; detached subtrees are left out.

    Args:
        ask: carries the requests.
        id: whose descendants.
        separators: what may join the id of a root and what is below it; the first is this client's own.
    """
    starts = {below(id, separator): None for separator in separators}
    origin = origin_of(id, separators[0])
    if origin != id:
        # Ids that were too long are not below the one that made them.
        starts[shortened_below(origin, separators[0])] = None
    return descendants_of(id, [record for start in starts async for record in scan(ask, start)])
