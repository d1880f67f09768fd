"""The debug operations: the clients of a server set its time (docs/protocol.md 13)."""

from __future__ import annotations

from functools import partial

from .._embedded._engine import Engine
from .._protocol import Envelope, snapshot, tick_time


async def answer_debug(engine: Engine, envelope: Envelope) -> object:
    """Do a debug operation and return the data of its answer.

    Raises:
        BadRequest: a tick has no instant.
    """
    match envelope.kind:
        case "debug.start":
            engine.pause()
        case "debug.stop":
            engine.resume()
        case "debug.reset":
            await engine.reset()
        case "debug.tick":
            await engine.sweep(tick_time(envelope, engine.rules))
            return []
        case _:
            return await engine.read(partial(snapshot, outbox=engine.router.waiting, rules=engine.rules))

    return {}
