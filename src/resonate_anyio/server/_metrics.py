"""Metrics of the server, under the names that the Resonate Server uses (docs/protocol.md 12.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

from .._protocol import DEBUG_KINDS, KINDS, Execute, Outcome, PutPromise
from ._asgi import TEXT, Receive, Reply, Scope, Send, empty_lifespan, target
from ._guard import Guard, refuse

_KINDS: Final = DEBUG_KINDS | KINDS
_NOT_FOUND: Final = Reply(404)
_ONLY_GET: Final = Reply(405, headers={"allow": "GET,HEAD"})
_NO_WEBSOCKETS: Final = Reply(400, b"There are no WebSockets here; send a plain HTTP request\n", TEXT)


@final
class Metrics:
    """Counters, and an ASGI application that shows them at `GET /metrics`.

    Args:
        allowed_hosts: further host names by which clients reach it, as for `make_app`. Requests for other hosts, and
            requests of web pages, are refused.

    Raises:
        InvalidArgument: a host has the wrong form.
    """

    def __init__(self, *, allowed_hosts: Iterable[str] = ()) -> None:
        self._guard = Guard.of(allowed_hosts, ())
        self._registry = CollectorRegistry()
        self._requests = self._counter("resonate_request", "Requests answered.", "kind", "status")
        self._messages = self._counter("resonate_messages", "Messages sent to workers.", "kind")
        self._fired = self._counter("resonate_schedule_promises", "Promises made by schedules.")
        self._seconds = Histogram(
            "resonate_request_duration_seconds", "How long requests took.", ["kind"], registry=self._registry
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def answered(self, kind: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        # Each label takes memory as long as the process lives, so clients cannot make labels up.
        label = kind if kind in _KINDS else "unknown"
        self._requests.labels(label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)

    def committed(self, outcome: Outcome) -> None:
        """Count the effects of one step."""
        for outgoing in outcome.messages:
            self._messages.labels("execute" if isinstance(outgoing.message, Execute) else "unblock").inc()

        for change in outcome.changes:
            if isinstance(change, PutPromise) and change.promise.pending and "resonate:schedule" in change.promise.tags:
                self._fired.inc()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await empty_lifespan(receive, send)
        else:
            await refuse(self._guard.refusal(scope) or self._reply(scope), scope, receive, send)

    def _reply(self, scope: Scope) -> Reply:
        _, path = target(scope)
        if scope["type"] == "websocket":
            return _NO_WEBSOCKETS

        if path != "/metrics":
            return _NOT_FOUND

        if scope["method"] not in {"GET", "HEAD"}:
            return _ONLY_GET

        return Reply(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)
