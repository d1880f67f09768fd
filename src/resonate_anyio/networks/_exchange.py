"""One request as bytes to send, and the bytes of the reply as an answer. The transport is elsewhere."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import final
from uuid import uuid4

from attrs import evolve

from .._errors import BadAnswer, NetworkError, TooLarge
from .._protocol import Request, Response, decode_response, encode_request, subject_of
from .._protocol._json import loads
from ._token import Token
from ._wire import Reply


@final
class Exchange:
    """A request on its way to the server, and its answer or its error.

    Args:
        request: the request.
        token: is put into the envelope, and removed from every text of the reply.
        max_body: the largest request that the server accepts, in bytes.
        url: the address of the server, for error messages.

    Raises:
        TooLarge: the request is larger than `max_body`.
    """

    def __init__(self, request: Request, token: Token, max_body: int, url: str) -> None:
        self._request = request
        self._url = url
        self._token = token
        self._corr_id = uuid4().hex
        envelope = encode_request(request, self._corr_id, auth=token.text)
        self.body = json.dumps(envelope, separators=(",", ":")).encode()
        """The bytes to send."""
        if len(self.body) > max_body:
            raise TooLarge(request.kind, self._subject, len(self.body), max_body)

    def answer(self, reply: Reply) -> Response:
        """Return the answer in a reply, whatever its protocol status.

        Raises:
            TooLarge: the server says that the request is too large.
            BadAnswer: the reply is not an answer to the request.
        """
        if reply.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise TooLarge(self._request.kind, self._subject, len(self.body))

        # Raised outside of `except`: the text of the first error may contain the token.
        try:
            return self._read(reply)
        except ValueError as error:
            reason = self._token.redacted(str(error))
        if reply.location is not None:
            reason = f"it redirects to {self._token.redacted(reply.location)!r}, which is not followed"
        excerpt = self._token.excerpt(reply.body.decode(errors="replace"))
        raise BadAnswer(self._request.kind, self._subject, f"{reason}: {excerpt!r}", reply.status, self._url)

    def unanswered(self, reason: str) -> NetworkError:
        """Return the error for a request that was not answered."""
        return NetworkError(self._request.kind, self._subject, self._token.redacted(reason), self._url)

    def failed_like(self, error: NetworkError) -> NetworkError:
        """Return the error for a request that was not sent because an earlier request failed with `error`."""
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
                return self._without_token(decode_response(self._request.kind, document))
            case {"kind": self._request.kind, "head": {"corrId": self._corr_id, "status": status}}:
                msg = f"its envelope says {self._token.excerpt(str(status))}"
            case {"kind": _, "head": {}}:
                msg = "it is the answer to something else"
            case _:
                msg = "it is no envelope of the protocol"
        raise ValueError(msg)

    def _without_token(self, response: Response) -> Response:
        """Remove the token from the text of an error, and from that of an inner answer."""
        if response.error is None and response.action is None:
            return response

        error = None if response.error is None else self._token.redacted(response.error)
        action = None if response.action is None else self._without_token(response.action)
        return evolve(response, error=error, action=action)

    @property
    def _subject(self) -> str:
        return subject_of(self._request)
