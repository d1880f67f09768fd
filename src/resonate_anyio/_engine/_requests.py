"""Requests about promises that several parts of the engine make, and what their answers mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from .._errors import NotFound, RequestError
from .._graph import descendants_of, origin_of, shortened_below
from .._protocol import Promise, PromiseCreate, PromiseGet, PromiseSearch, Request, Response, TaskCreate
from ..abc import Connection

_PAGE: Final = 1000
_TIMER_HOLDER: Final = "timer"  # the pid that holds the tasks of timers and external promises (distribution 3)
_TIMER_LEASE_MARGIN_MS: Final = 3_600_000


def refusal(request: Request, response: Response) -> RequestError:
    """The error that an answer is which the asker cannot handle."""
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


def timer_task(create: PromiseCreate, now: int) -> TaskCreate:
    """What makes a promise whose deadline fires although no one may be there to look.

    Servers arm the deadline of a promise that has a task. The task is born acquired by nobody in particular, for
    longer than the deadline, so that no message is ever sent for it (distribution 3).
    """
    ttl = max(create.timeout_at - now, 0) + _TIMER_LEASE_MARGIN_MS
    return TaskCreate(pid=_TIMER_HOLDER, ttl=ttl, action=create)


async def get_promise(connection: Connection, id: str) -> Promise:
    """The record of `id`.

    Raises:
        NotFound: there is none.
    """
    request = PromiseGet(id=id)
    return promise_of(request, await connection.request(request), id)


async def scan(connection: Connection, start: str) -> AsyncIterator[Promise]:
    """Every record whose id starts with `start`, in id order: one range scan, a page at a time."""
    cursor: str | None = start
    while cursor is not None:
        request = PromiseSearch(cursor=cursor, limit=_PAGE)
        response = await connection.request(request)
        if response.status != 200:
            raise refusal(request, response)
        for record in response.promises:
            if not record.id.startswith(start):
                return
            yield record
        cursor = response.cursor


async def descendants(connection: Connection, id: str) -> list[Promise]:
    """What `id` has called, directly or not, in id order; detached subtrees are left out."""
    records = [record async for record in scan(connection, f"{id}.")]
    if origin_of(id) != id:
        # Ids that were too long are not below the one that made them.
        records += [record async for record in scan(connection, shortened_below(origin_of(id)))]
    return descendants_of(id, records)
