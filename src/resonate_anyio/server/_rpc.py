"""`Rpc`: answers the envelope of a request with the envelope of a response (docs/protocol.md 2 and 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from attrs import define

from .._embedded._engine import Engine
from .._errors import StoreError, StoreUnavailable
from .._protocol import (
    DEBUG_KINDS,
    BadRequest,
    Envelope,
    Response,
    decode_request,
    encode_refusal,
    encode_response,
    read_envelope,
    reply,
)
from ._auth import Auth
from ._debug import answer_debug

_logger: Final = logging.getLogger("resonate_anyio.server")

Document: TypeAlias = dict[str, Any]
Observer: TypeAlias = Callable[[Envelope, int, Document], None]
"""Called with a request, its instant and its answer, in the order in which requests took effect."""


@define
class Rpc:
    """Answers requests of the protocol."""

    _engine: Engine
    _auth: Auth | None = None
    _debug: bool = False
    #: Called for each request that the state machine decided.
    _observe: Observer | None = None

    async def answer(self, body: bytes) -> Document:
        """Return the answer to a request: a response or a refusal."""
        try:
            return await self._answer(read_envelope(body))
        except BadRequest as refused:
            return encode_refusal(refused)

    async def _answer(self, envelope: Envelope) -> Document:
        if self._auth is not None:
            self._auth.admit(envelope)

        try:
            if self._debug and envelope.kind in DEBUG_KINDS:
                return reply(envelope.kind, envelope.corr_id, 200, await answer_debug(self._engine, envelope))

            return await self._decide(envelope)
        except StoreUnavailable as error:
            # The engine logs once that the store cannot be written, and once that it can be written again.
            _logger.debug("%s", error)
            raise envelope.refuse(500, "Internal error: the store cannot be written at present") from None
        except StoreError:
            # The log has the cause, for the operator. The client learns only that the request may have had no effect.
            _logger.exception("%s was not answered", envelope.kind)
            raise envelope.refuse(500, "Internal error: the store failed") from None

    async def _decide(self, envelope: Envelope) -> Document:
        request = decode_request(envelope)
        answers: list[Document] = []

        def decided(at: int, response: Response) -> None:
            document = encode_response(request, response, envelope.corr_id)
            answers.append(document)
            if self._observe is not None:
                self._observe(envelope, at, document)

        await self._engine.request(request, now=envelope.debug_time if self._debug else None, then=decided)
        return answers[0]
