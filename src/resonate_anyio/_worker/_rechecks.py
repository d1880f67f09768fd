"""`Rechecks`: how a worker learns that a promise was settled, although messages may be lost.

The server sends a message when a promise with a listener is settled. The worker asks for a promise again:

* periodically, on networks that may lose messages;
* at once for all promises, after a gap in the message stream;
* at the deadline of the promise, because not every server sends a message then.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from contextlib import suppress
from functools import partial
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from anyio import Event, current_time, move_on_after
from attrs import define, field

from .._errors import NotRunning
from .._finished import as_call
from .._protocol import Promise, PromiseGet, RegisterListener
from .._requests._queries import get_promise, promise_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._execution._execution import Execution
    from .._execution._services import Services

_NO_LISTENERS: Final = frozenset({422})
"""Status of servers that refuse listeners on promises that only an execution itself settles."""

_ASK_AGAIN: Final = 1.0
"""Seconds after which a promise that was still pending at its deadline is asked for again."""

_SPARE_ENTRIES: Final = 100

_ASKED_A_ROUND: Final = 600

_CLOCKS_PARTED: Final = 1.0
"""Seconds by which the offset between two clocks may change before deadlines are mapped again."""


@define(eq=False, repr=False)
class Rechecks:
    """See the module's docstring.

    Attributes:
        _executions: the executions in this process.
        _parked: those of them that are parked.
    """

    _services: Services
    _executions: Mapping[str, Execution]
    _parked: Mapping[str, Execution]
    _deadlines: list[tuple[float, str]] = field(factory=list, init=False)
    _expected: dict[str, float] = field(factory=dict, init=False)
    _sleeps_until: float = field(default=-math.inf, init=False)
    _woken: Event = field(factory=Event, init=False)

    # One promise

    async def register_listener(self, id: str, execution: Execution | None = None) -> Promise:
        """Ask the server for a message when `id` is settled, and return its record, which may be settled already.

        Args:
            id: the promise.
            execution: the execution that waits for it, if any; its lease then decides whether the request is repeated.

        Raises:
            NotFound: there is no such promise.
        """
        request = RegisterListener(awaited=id, address=self._services.identity.unicast)
        ask = (
            self._services.requester.request_with_retries
            if execution is None
            else partial(execution.request, taken=_NO_LISTENERS)
        )
        response = await ask(request)
        if response.status in _NO_LISTENERS:
            # There will be no message: the promise is asked for again from time to time.
            return await get_promise(ask, id)
        return promise_of(request, response, id)

    async def recheck(self, id: str) -> None:
        """Ask for a promise once more, and notify its subscribers if it is settled."""
        request = self._services.requester.request_until_answered
        response = await request(RegisterListener(awaited=id, address=self._services.identity.unicast))
        if response is not None and response.status in _NO_LISTENERS:
            response = await request(PromiseGet(id=id))
        if response is not None and response.promise is not None and not response.promise.pending:
            self._services.subscriptions.notify(as_call(response.promise))

    # All promises

    async def run_periodically(self) -> None:
        """Ask for all promises again and again, until the worker begins to stop.

        At most `_ASKED_A_ROUND` promises per round; the rest follow in later rounds.
        """
        subscriptions = self._services.subscriptions
        last = ""
        while not self._services.draining:
            await subscriptions.pause(subscriptions.jittered(self._services.connection.recheck))
            ids = sorted(self._in_messages_only())
            start = bisect_right(ids, last)
            for id in [*ids[start:], *ids[:start]][:_ASKED_A_ROUND]:
                await self.recheck(id)
                last = id

    async def recheck_all(self) -> None:
        """Ask for all promises, because messages may have been lost."""
        for id in self._in_messages_only():
            await self.recheck(id)

    def _in_messages_only(self) -> set[str]:
        """Return the ids of the awaited promises whose settlement the worker may learn from a message only."""
        # The server sends the task of a parked execution again and again when something that it awaits is settled. Of a
        # leased execution the server is asked once a minute, together with the lease.
        covered = {id for execution in self._parked.values() for id in execution.awaited}
        covered |= {id for id, execution in self._executions.items() if execution.lease.looked_after}
        return {id for id in self._services.subscriptions.ids if id not in covered}

    # Deadlines

    def ask_at_deadline(self, record: Promise) -> None:
        """Ask for an awaited promise at its deadline, unless every server sends a message then."""
        if not self._services.timer_promises.fires(record):
            seconds = max(record.timeout_at - self._services.connection.now(), 0) / 1000
            self._ask_at(current_time() + seconds, record.id)

    async def run_deadlines(self) -> None:
        """Ask for promises at their deadlines, until the worker begins to stop."""
        while not self._services.draining:
            self._ask_for_expired(current_time())
            self._woken = Event()
            self._sleeps_until = self._deadlines[0][0] if self._deadlines else math.inf
            with move_on_after(self._sleeps_until - current_time()), suppress(NotRunning):
                await self._services.subscriptions.wait(self._woken)
            self._sleeps_until = -math.inf

    def _ask_at(self, due: float, id: str) -> None:
        if self._expected.setdefault(id, due) < due:
            return
        self._expected[id] = due
        heappush(self._deadlines, (due, id))
        if len(self._deadlines) > 2 * len(self._services.subscriptions.ids) + _SPARE_ENTRIES:
            self._forget_deadlines()
        if due < self._sleeps_until:
            self._woken.set()

    def _forget_deadlines(self) -> None:
        """Forget the deadlines of promises that are not awaited any more: these are most of them."""
        awaited = self._services.subscriptions.ids
        self._expected = {id: due for id, due in self._expected.items() if id in awaited}
        self._deadlines = [(due, id) for id, due in self._expected.items()]
        heapify(self._deadlines)

    def _ask_for_expired(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            due, id = heappop(self._deadlines)
            if self._expected.get(id) == due:
                del self._expected[id]
                if id in self._services.subscriptions.ids:
                    self._services.background(self._ask_for, id, name=f"resonate deadline {id}")

    async def _ask_for(self, id: str) -> None:
        await self.recheck(id)
        if id in self._services.subscriptions.ids:
            # The clock of this process is ahead of the server's.
            self._ask_at(current_time() + _ASK_AGAIN, id)


async def watch_clocks(services: Services, executions: Mapping[str, Execution]) -> None:
    """Map deadlines again whenever the server's clock and the event loop's have parted.

    Deadlines are instants of the server's clock, and timers are set by the event loop's.
    """

    def offset() -> float:
        return services.connection.now() / 1000 - current_time()

    mapped_at = offset()
    while not services.draining:
        await services.subscriptions.pause(services.connection.clock_check)
        if abs(offset() - mapped_at) > _CLOCKS_PARTED:
            mapped_at = offset()
            for execution in executions.values():
                execution.presence.map_deadlines()
