"""What other SDKs put on the wire: the JSON files in `wire/`, each with its calls and its answers as they were sent."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from resonate_anyio._protocol import PromiseCreate, PromiseSettle, Request, Value, decode_request, open_envelope

_FOLDER: Final = Path(__file__).parent / "wire"


def request(kind: str, data: dict[str, Any]) -> Request:
    """A request as a server reads it."""
    head = {"corrId": "1", "version": "2026-04-01"}
    return decode_request(open_envelope({"kind": kind, "head": head, "data": data}))


def content(value: Value) -> Any:
    """The JSON in a payload; "" if there is a payload without any, None if there is none."""
    return json.loads(b64decode(value.data)) if value.data else value.data


@frozen
class Sdk:
    """What one SDK was seen to send.

    Attributes:
        name: its name and version.
        prefix: what the names of its functions begin with.
        creates: the data of its `promise.create`, by what is called. Roots have the id `root`; there are no deadlines.
        settles: state and value of the `promise.settle` with which its workers answer.
    """

    name: str
    prefix: str
    creates: dict[str, dict[str, Any]]
    settles: dict[str, dict[str, Any]]

    def create(self, name: str, timeout_at: int) -> PromiseCreate:
        """Its call, with a deadline."""
        create = request("promise.create", {**self.creates[name], "timeoutAt": timeout_at})
        assert isinstance(create, PromiseCreate)
        return create

    def settle(self, name: str, id: str) -> PromiseSettle:
        """Its answer to a call that has this id."""
        settle = request("promise.settle", {**self.settles[name], "id": id})
        assert isinstance(settle, PromiseSettle)
        return settle


def _sdk(file: Path) -> Sdk:
    found = json.loads(file.read_text("utf-8"))
    return Sdk(found["sdk"], found["prefix"], found["creates"], found["settles"])


SDKS: Final = [_sdk(file) for file in sorted(_FOLDER.glob("*.json"))]
