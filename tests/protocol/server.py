"""A whole server made of the machine and a store, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field

from resonate_anyio._protocol import (
    DEBUG_KINDS,
    BadRequest,
    Envelope,
    Execute,
    Message,
    Outbox,
    Outcome,
    Promise,
    Request,
    Response,
    Rules,
    Schedule,
    Step,
    Task,
    apply,
    decode_request,
    encode_refusal,
    encode_response,
    next_due,
    open_envelope,
    recover,
    reply,
    reset,
    snapshot,
    tick,
    tick_time,
)
from resonate_anyio.abc import Store


@define
class Server:
    """Envelopes in and out (`answer`), or typed requests in and out (`ask`)."""

    make_store: Callable[[], Store]
    rules: Rules
    store: Store = field(init=False)
    outbox: Outbox = field(init=False, factory=Outbox)

    def __attrs_post_init__(self) -> None:
        self.store = self.make_store()
        self.store.open()

    def close(self) -> None:
        self.store.close()

    def step(self, step: Step) -> Outcome:
        """Take one step and queue its messages."""
        [outcome] = self.store.transact([step])
        self.outbox.add(outcome.messages)
        return outcome

    def ask(self, now: int, request: Request) -> Response:
        return self.step(partial(apply, now=now, request=request, rules=self.rules)).response

    def tick(self, now: int, *, renew: frozenset[str] = frozenset(), limit: int | None = None) -> Outcome:
        return self.step(partial(tick, now=now, rules=self.rules, renew=renew, limit=limit))

    def recover(self, now: int) -> Outcome:
        return self.step(partial(recover, now=now, rules=self.rules))

    def recover_part(self, now: int, cursor: str | None, limit: int) -> Outcome:
        return self.step(partial(recover, now=now, rules=self.rules, cursor=cursor, limit=limit))

    def next_due(self) -> int | None:
        return self.store.read(lambda view: next_due(view, self.rules))

    def promise(self, id: str) -> Promise:
        promise = self.store.read(lambda view: view.promise(id))
        assert promise is not None
        return promise

    def task(self, id: str) -> Task:
        task = self.store.read(lambda view: view.task(id))
        assert task is not None
        return task

    def schedule(self, id: str) -> Schedule:
        schedule = self.store.read(lambda view: view.schedule(id))
        assert schedule is not None
        return schedule

    def sent(self) -> list[Message]:
        """Take what waits to be sent."""
        return [outgoing.message for outgoing in self.outbox.take()]

    def executes(self) -> list[str]:
        """Take what waits to be sent, and give the tasks that are sent for."""
        return [message.task_id for message in self.sent() if isinstance(message, Execute)]

    def snapshot(self) -> dict[str, Any]:
        return self.store.read(lambda view: snapshot(view, self.outbox, self.rules))

    def answer(self, document: object, at: int) -> dict[str, Any]:
        """Answer one envelope; without a debug time of its own it arrives at `at`."""
        try:
            envelope = open_envelope(document)
            if envelope.kind in DEBUG_KINDS:
                return reply(envelope.kind, envelope.corr_id, 200, self._debug(envelope))

            request = decode_request(envelope)
        except BadRequest as refused:
            return encode_refusal(refused)

        now = at if envelope.debug_time is None else envelope.debug_time
        return encode_response(request, self.ask(now, request), envelope.corr_id)

    def _debug(self, envelope: Envelope) -> object:
        match envelope.kind:
            case "debug.tick":
                self.tick(tick_time(envelope, self.rules))
                return []
            case "debug.snap":
                return self.snapshot()
            case "debug.reset":
                self.step(reset)
                self.outbox.clear()
                return {}
            case _:
                # Virtual time runs by requests alone: there is nothing to start or stop.
                return {}
