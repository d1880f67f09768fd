"""Exchanges recorded from real servers come out of the machine exactly as they were."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from resonate_anyio._protocol import (
    DEBUG_KINDS,
    RELEASE,
    SNAPSHOT,
    Rules,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    open_envelope,
)

from .server import Server

FOLDER: Final = Path(__file__).parents[1] / "transcripts"
RULES: Final = {"release": RELEASE, "snapshot": SNAPSHOT}
# The others are about HTTP: see tests/server.
FAMILIES: Final = ("op-", "scenario-", "random-")
FILES: Final = [
    f"{path.parent.name}/{path.name}" for path in sorted(FOLDER.glob("*/*.jsonl.xz")) if path.name.startswith(FAMILIES)
]


def exchanges(name: str) -> Iterator[dict[str, Any]]:
    with lzma.open(FOLDER / name, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def test_both_servers_are_there() -> None:
    """The recordings have not been lost on the way."""
    assert {"release": 36, "snapshot": 39} == {
        server: sum(name.startswith(server) for name in FILES) for server in RULES
    }


@pytest.mark.parametrize("name", FILES)
def test_replay(serve: Callable[[Rules], Server], name: str) -> None:
    """Every request is answered with the recorded status, and every success with the recorded data."""
    server = serve(RULES[name.partition("/")[0]])
    for line, exchange in enumerate(exchanges(name), 1):
        answer = server.answer(exchange["request"], exchange["at"])
        expected: dict[str, Any] = exchange["response"]
        assert exchange["status"] == answer["head"]["status"]
        if exchange["status"] >= 400:
            # The texts are for people, and the servers' own are not stable.
            answer, expected = answer | {"data": ""}, expected | {"data": ""}

        assert expected == answer, f"{name}, line {line}: {exchange['request']}"


@pytest.mark.parametrize("name", FILES)
def test_both_directions_of_the_wire_agree(name: str) -> None:
    """A recorded request and its answer survive being decoded and encoded again."""
    for exchange in exchanges(name):
        if exchange["status"] >= 400 or exchange["request"]["kind"] in DEBUG_KINDS:
            continue

        request = decode_request(open_envelope(exchange["request"]))
        head = exchange["request"]["head"]
        again = encode_request(request, head["corrId"], debug_time=head.get("resonate:debug_time"))
        assert request == decode_request(open_envelope(again))

        response = decode_response(request.kind, exchange["response"])
        assert exchange["response"] == encode_response(request, response, head["corrId"])
