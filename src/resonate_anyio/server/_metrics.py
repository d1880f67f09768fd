"""What the server counts, in the names of the Resonate Server (protocol 12.3)."""

from __future__ import annotations

from typing import Final, final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

from .._protocol import DEBUG_KINDS, KINDS, Execute, Outcome, PutPromise
from ._asgi import Receive, Reply, Scope, Send, empty_lifespan

_KINDS: Final = DEBUG_KINDS | KINDS
_NOT_FOUND: Final = Reply(404)


@final
class Metrics:
    """Counts, and shows what it counted: an ASGI application that answers `GET /metrics`."""

    def __init__(self) -> None:
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
        # A label takes room for ever, so nobody may choose it.
        label = kind if kind in _KINDS else "unknown"
        self._requests.labels(label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)

    def committed(self, outcome: Outcome) -> None:
        """Count what followed from one step."""
        for outgoing in outcome.messages:
            self._messages.labels("execute" if isinstance(outgoing.message, Execute) else "unblock").inc()

        for change in outcome.changes:
            if isinstance(change, PutPromise) and change.promise.pending and "resonate:schedule" in change.promise.tags:
                self._fired.inc()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await empty_lifespan(receive, send)
        elif scope["path"] == "/metrics":
            await Reply(200, generate_latest(self._registry), CONTENT_TYPE_LATEST).send(send)
        else:
            await _NOT_FOUND.send(send)
