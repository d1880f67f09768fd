"""`Requester`: how one worker asks the server, again if need be.

The network sends a request once. Whether it is sent again depends on what it is for: what records something for an
execution is sent again only while its lease lasts (`Execution.request`), what takes a lease is followed up by looking
whether it was taken (`Acquisition`). All else is here: it may be sent twice without harm.
"""

from __future__ import annotations

import logging
from typing import Final

from anyio import current_time
from attrs import define, field, frozen

from .._concurrency._backoff import Backoff
from .._errors import NetworkError, ResonateError
from .._protocol import Request, Response, ScheduleDelete
from ..abc import Connection
from ._queries import refusal
from ._subscriptions import Subscriptions

logger = logging.getLogger("resonate_anyio")

_REFUSALS: Final = frozenset({400, 403})
_UNAVAILABLE: Final = frozenset({429, 500, 502, 503, 504})
_PATIENCE: Final = 30.0
"""Seconds after which somebody who waits for an answer is told that there is none."""
_UNAUTHORIZED: Final = 401
_FIRST_RETRY: Final = 0.25


def unavailable(response: Response) -> bool:
    """Whether a server answers that it cannot answer now."""
    return response.status in _UNAVAILABLE


@frozen
class Answer:
    """What a request was answered with.

    Attributes:
        response: the answer.
        sent: when the request was sent that it belongs to, by the clock of leases.
        again: whether the same was sent before, and that may have had its effect.
    """

    response: Response
    sent: float
    again: bool


@define(eq=False)
class Requester:
    """See the module's docstring."""

    _connection: Connection
    _subscriptions: Subscriptions

    async def ask(self, request: Request) -> Response:
        """Send a request that may be sent twice until it is answered, for half a minute.

        Raises:
            NetworkError: it was not.
            ResonateError: it cannot be sent.
        """
        answer = await self.persist(request)
        return _first_answer(request, answer.response) if answer.again else answer.response

    async def persist(self, request: Request) -> Answer:
        """The same, with how the answer was come by, for requests of which a second one may be answered otherwise."""
        tries = Tries(self._subscriptions, self._subscriptions.backoff(_FIRST_RETRY))
        while True:
            sent = self._connection.elapsed()
            try:
                response = await self._connection.request_within(request, tries.left)
            except NetworkError as exc:
                await tries.failed(exc)
            else:
                if not unavailable(response):
                    return Answer(response, sent, again=tries.count > 0)
                await tries.failed(refusal(request, response))

    async def insist(self, request: Request) -> Response | None:
        """Send a request until it is answered, be it with a refusal: that would be the same the next time.

        None if the worker is being stopped: it is tried once more then.
        """
        backoff = self._subscriptions.backoff()
        while True:
            try:
                response = await self._connection.request(request)
                # A token may be about to be changed; nothing else goes on without it.
                if not unavailable(response) and response.status != _UNAUTHORIZED:
                    if response.status in _REFUSALS:
                        logger.warning("worker.refused kind=%s status=%d", request.kind, response.status)
                    return response
                failure: object = response.error
            except ResonateError as exc:
                failure = exc
            logger.warning("worker.unanswered kind=%s retry_in=%.1f reason=%s", request.kind, backoff.delay, failure)
            if self._subscriptions.stopping:
                return None
            await backoff.pause()


@define(eq=False)
class Tries:
    """The attempts at one request of somebody who waits for the answer.

    Attributes:
        count: how many have failed.
    """

    _subscriptions: Subscriptions
    _backoff: Backoff
    _deadline: float = field(factory=lambda: current_time() + _PATIENCE, init=False)
    count: int = field(default=0, init=False)

    @property
    def left(self) -> float:
        """Seconds until there is no point in another one."""
        return self._deadline - current_time()

    async def failed(self, failure: ResonateError) -> None:
        """One has failed: wait before the next one, unless it has been long enough.

        Raises:
            ResonateError: `failure`.
        """
        self.count += 1
        left = self.left
        if left <= 0 or self._subscriptions.stopping:
            raise failure
        delay = min(self._backoff.next(), left)
        logger.info("client.unanswered retry_in=%.2f reason=%s", delay, failure)
        await self._subscriptions.pause(delay)


def _first_answer(request: Request, response: Response) -> Response:
    """What an earlier attempt would have been answered, as far as a later one can tell."""
    gone = isinstance(request, ScheduleDelete) and response.status == 404
    return Response(status=200) if gone else response
