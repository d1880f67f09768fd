"""Giving leases back: what an in-process engine renews for us for ever has to be let go by us, whatever goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from attrs import define, field

from .._errors import ResonateError
from .._protocol import Request, Response, TaskGet, TaskRelease
from ..abc import Connection
from ._waiting import FIRST_BACKOFF, Waiting, longer

logger = logging.getLogger("resonate_anyio")

_ANSWERS: Final = frozenset({200, 404, 409})  # all others speak of a server that cannot answer now


@define(eq=False)
class Leases:
    """The leases of one worker, and how often each task was given back in a row."""

    _connection: Connection
    _holder: str
    _waiting: Waiting
    _backoff: dict[str, float] = field(factory=dict, init=False)

    async def release(self, id: str, version: int) -> None:
        """Give a task back now, if that can be done."""
        failure: object = None
        try:
            response = await self._connection.request(TaskRelease(id=id, version=version))
            if response.status not in _ANSWERS:
                failure = response.error
        except ResonateError as exc:
            failure = exc
        if failure is not None:
            logger.warning("task.release_failed id=%s reason=%r", id, failure)

    async def hand_back(self, id: str, version: int, reason: object) -> None:
        """Give back a task that could not be run to its end here, after a while that grows from one time to the next.

        It may be sent here again at once.
        """
        delay = self._backoff.get(id, FIRST_BACKOFF)
        self._backoff[id] = longer(delay)
        logger.warning("task.handed_back id=%s in=%.1f reason=%s", id, delay, reason)
        await self._waiting.pause(delay)
        await self.insist(TaskRelease(id=id, version=version))

    def ended(self, id: str) -> None:
        """A task was run to its end here: the next time that it has to be given back is the first."""
        self._backoff.pop(id, None)

    async def look_for(self, id: str, runs_here: Callable[[str], bool]) -> None:
        """The answer to a request for a lease was lost: if the lease was granted, nobody runs what it is for."""
        response = await self.insist(TaskGet(id=id))
        task = None if response is None else response.task
        if task is not None and task.pid == self._holder and not runs_here(id):
            await self.hand_back(id, task.version, "the answer that granted its lease was lost, or was of no use")

    async def insist(self, request: Request) -> Response | None:
        """Send a request until it is answered. None if the worker is being stopped: it is tried once more then."""
        backoff = self._waiting.backoff()
        while True:
            try:
                response = await self._connection.request(request)
                if response.status in _ANSWERS:
                    return response
                failure: object = response.error
            except ResonateError as exc:
                failure = exc
            logger.warning("worker.unanswered kind=%s retry_in=%.1f reason=%r", request.kind, backoff.delay, failure)
            if self._waiting.stopping:
                return None
            await backoff.pause()
