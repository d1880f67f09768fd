"""`Requester`: sends the requests of one worker to the server, again if there is no answer.

A network sends a request once. This module repeats the requests that may be sent twice without harm. Two kinds of
requests are repeated elsewhere: those that record something for an execution, only while its lease lasts
(`Execution.request`); and those that acquire a lease, after a look whether the lease was granted (`Acquisition`).
"""

from __future__ import annotations

import logging
from typing import Final

from anyio import current_time
from attrs import define, field, frozen

from .._concurrency._backoff import Backoff
from .._errors import NetworkError, ResonateError
from .._protocol import Request, Response, ScheduleDelete
from .._values import ValueObject
from ..abc import Connection
from ._queries import refusal
from ._subscriptions import Subscriptions

logger = logging.getLogger("resonate_anyio")

_REFUSALS: Final = frozenset({400, 403})
_UNAVAILABLE: Final = frozenset({429, 500, 502, 503, 504})
_PATIENCE: Final = 30.0
"""Seconds after which a request fails for code that waits for the answer."""
_UNAUTHORIZED: Final = 401
_FIRST_RETRY: Final = 0.25


def unavailable(response: Response) -> bool:
    """Return whether the answer says that the server cannot handle requests at present."""
    return response.status in _UNAVAILABLE


@frozen(eq=False, repr=False)
class Answer(ValueObject):
    """The answer to a request that was sent once or several times.

    Attributes:
        response: the answer.
        sent: when the answered request was sent, by the clock of leases.
        again: whether the same request was sent before, so that it may have taken effect already.
    """

    response: Response
    sent: float
    again: bool


@define(eq=False, repr=False)
class Requester:
    """See the module's docstring."""

    _connection: Connection
    _subscriptions: Subscriptions

    async def request_with_retries(self, request: Request) -> Response:
        """Send a request again until it is answered, for half a minute at most.

        Raises:
            NetworkError: there was no answer.
            ResonateError: the request cannot be sent.
        """
        answer = await self.answer_with_retries(request)
        return _first_answer(request, answer.response) if answer.again else answer.response

    async def answer_with_retries(self, request: Request) -> Answer:
        """Do the same as `request_with_retries`, and return whether the request was sent before.

        This is for requests that are answered differently when they are sent a second time.
        """
        attempts = Attempts(self._subscriptions, self._subscriptions.backoff(_FIRST_RETRY))
        while True:
            sent = self._connection.elapsed()
            try:
                response = await self._connection.request_within(request, attempts.seconds_left)
            except NetworkError as exc:
                await attempts.failed(exc)
            else:
                if not unavailable(response):
                    return Answer(response, sent, again=attempts.count > 0)
                await attempts.failed(refusal(request, response))

    async def request_until_answered(self, request: Request) -> Response | None:
        """Send a request again until it is answered, however long that takes. A refusal is an answer.

        Return None if the worker stops meanwhile; one more attempt is made then.
        """
        backoff = self._subscriptions.backoff()
        while True:
            try:
                response = await self._connection.request(request)
                # The token may be replaced soon. Without a valid token no other request succeeds either.
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


@define(eq=False, repr=False)
class Attempts:
    """The attempts at one request, made for code that waits for the answer.

    Attributes:
        count: the number of failed attempts.
    """

    _subscriptions: Subscriptions
    _backoff: Backoff
    _deadline: float = field(factory=lambda: current_time() + _PATIENCE, init=False)
    count: int = field(default=0, init=False)

    @property
    def seconds_left(self) -> float:
        """The seconds until no further attempt is made."""
        return self._deadline - current_time()

    async def failed(self, failure: ResonateError) -> None:
        """Note a failed attempt, and wait before the next one.

        Raises:
            ResonateError: `failure`, if there is no next attempt.
        """
        self.count += 1
        left = self.seconds_left
        if left <= 0 or self._subscriptions.stopping:
            raise failure
        delay = min(self._backoff.next(), left)
        logger.info("client.unanswered retry_in=%.2f reason=%s", delay, failure)
        await self._subscriptions.pause(delay)


def _first_answer(request: Request, response: Response) -> Response:
    """Return the answer that an earlier attempt would have got, as far as the answer to a later one tells."""
    gone = isinstance(request, ScheduleDelete) and response.status == 404
    return Response(status=200) if gone else response
