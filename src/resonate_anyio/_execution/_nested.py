"""A look at the running calls whose records do not come with the lease.

The records of the root's own local calls come with each acquire, so a worker that resumes a parked execution sees which
of them were settled from outside. Calls of nested workflows are in other branches. They have listeners, but a message
may be lost; so they are asked for as well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Protocol

from anyio import create_task_group

from .._errors import RequestError, ResonateError
from .._ids import below
from .._protocol import Promise, PromiseGet
from .._requests._queries import MAY_NOT_SEARCH, frontier
from .._requests._requester import Requester
from .._workflow._host import Drop
from .._workflow._presence import Presence

logger = logging.getLogger("resonate_anyio")

_FEW: Final = 8
"""The largest number of calls that are asked for one by one. More are read by a range scan."""
_AT_ONCE: Final = 12


class Sender(Protocol):
    """The worker, as far as it is needed here."""

    @property
    def requester(self) -> Requester: ...
    @property
    def separator(self) -> str: ...


class Resumed(Protocol):
    """The execution, as far as it is needed here."""

    @property
    def id(self) -> str: ...
    @property
    def services(self) -> Sender: ...
    @property
    def presence(self) -> Presence: ...
    @property
    def dropped(self) -> Drop | None: ...

    def end_calls(self, records: Iterable[Promise]) -> None:
        """Cancel the local calls that run here although their promises were settled, from outside."""
        ...


async def end_settled_below(execution: Resumed) -> None:
    """Cancel the running calls of nested workflows that were settled from outside."""
    frames = execution.presence.frames
    ids = [frame.id for frame in frames if frame.parent is not None and frame.record.branch != execution.id]
    if execution.dropped is not None or not ids:
        return
    try:
        if len(ids) <= _FEW or not await _scan(execution):
            await _ask(execution, ids)
    except* ResonateError as failed:
        # Their listeners tell, and this worker asks for them from time to time.
        logger.warning("execution.nested_not_read id=%s reason=%r", execution.id, failed.exceptions[0])


async def _scan(execution: Resumed) -> bool:
    """Read the calls by a range scan. Return False if this worker may not search."""
    start = below(execution.id, execution.services.separator)
    try:
        records = frontier(execution.services.requester.request_with_retries, start)
        execution.end_calls([record async for record in records])
    except RequestError as exc:
        if exc.status not in MAY_NOT_SEARCH:
            raise
        return False
    return True


async def _ask(execution: Resumed, ids: list[str]) -> None:
    """Ask for the calls one by one, several at once."""
    left = iter(ids)

    async def some() -> None:
        for id in left:
            response = await execution.services.requester.request_with_retries(PromiseGet(id=id))
            if response.promise is not None:
                execution.end_calls([response.promise])

    async with create_task_group() as tasks:
        for _ in range(min(_AT_ONCE, len(ids))):
            tasks.start_soon(some)
