"""One request as the bytes to send, and the bytes that came back as its answer; how they travel is not known here."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import final
from uuid import uuid4

from attrs import evolve

from .._errors import BadAnswer, NetworkError, TooLarge
from .._protocol import (
    Request,
    Response,
    decode_response,
    encode_request,
    subject_of,
)
from .._protocol._json import loads
from ._token import Token
from ._wire import Reply


@final
class Exchange:
    """A request under way, and what becomes of it.

    Args:
        request: what is asked for.
        token: goes into the envelope, and out of every text that comes back.
        max_body: how many bytes the server takes.
        url: the server, for messages.

    Raises:
        TooLarge: it is larger than that.
    """

    def __init__(self, request: Request, token: Token, max_body: int, url: str) -> None:
        self._request = request
        self._url = url
        self._token = token
        self._corr_id = uuid4().hex
        envelope = encode_request(request, self._corr_id, auth=token.text)
        self.body = json.dumps(envelope, separators=(",", ":")).encode()
        """What to send."""
        if len(self.body) > max_body:
            raise TooLarge(request.kind, self._subject, len(self.body), max_body)

    def answer(self, reply: Reply) -> Response:
        """Read the answer, whatever its protocol status.

        Raises:
            TooLarge: the server says that the request is.
            BadAnswer: this is no answer to it.
        """
        if reply.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise TooLarge(self._request.kind, self._subject, len(self.body))

        # Raised outside of `except`: the first error's text may hold what this one has left out.
        try:
            return self._read(reply)
        except ValueError as error:
            reason = self._token.redacted(str(error))
        if reply.location is not None:
            reason = f"it redirects to {self._token.redacted(reply.location)!r}, which is not followed"
        excerpt = self._token.excerpt(reply.body.decode(errors="replace"))
        raise BadAnswer(self._request.kind, self._subject, f"{reason}: {excerpt!r}", reply.status, self._url)

    def unanswered(self, reason: str) -> NetworkError:
        """Give the error for a request that was not answered."""
        return NetworkError(self._request.kind, self._subject, self._token.redacted(reason), self._url)

    def failed_like(self, error: NetworkError) -> NetworkError:
        """Give the error for a request that was not sent because one before it failed."""
        if isinstance(error, BadAnswer):
            return BadAnswer(self._request.kind, self._subject, error.reason, error.status, self._url)
        return NetworkError(self._request.kind, self._subject, error.reason, self._url)

    def _read(self, reply: Reply) -> Response:
        try:
            document = loads(reply.body, note_duplicates=False)
        except ValueError:
            msg = "it is not JSON"
            raise ValueError(msg) from None

        match document:
            case {"kind": self._request.kind, "head": {"corrId": self._corr_id, "status": reply.status}}:
                return self._hushed(decode_response(self._request.kind, document))
            case {"kind": self._request.kind, "head": {"corrId": self._corr_id, "status": status}}:
                msg = f"its envelope says {self._token.excerpt(str(status))}"
            case {"kind": _, "head": {}}:
                msg = "it is the answer to something else"
            case _:
                msg = "it is no envelope of the protocol"
        raise ValueError(msg)

    def _hushed(self, response: Response) -> Response:
        """Take the token out of the text of an error, and of one inside of it."""
        if response.error is None and response.action is None:
            return response

        error = None if response.error is None else self._token.redacted(response.error)
        action = None if response.action is None else self._hushed(response.action)
        return evolve(response, error=error, action=action)

    @property
    def _subject(self) -> str:
        return subject_of(self._request)
