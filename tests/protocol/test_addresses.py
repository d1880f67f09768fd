"""Which addresses are accepted. What the servers accept is in the transcript `op-promise-create`."""

from __future__ import annotations

import pytest

from resonate_anyio._protocol import PollAddress, parse_poll, valid_address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("poll://any@g", PollAddress("any", "g", None)),
        ("poll://any@g/", PollAddress("any", "g", None)),
        ("poll://uni@g/a/b", PollAddress("uni", "g", "a/b")),
        ("POLL://any:secret@g:80/w?x=1#f", PollAddress("any", "g", "w")),
        (" poll://uni@group-1.x/w_1\n", PollAddress("uni", "group-1.x", "w_1")),
        ("poll://any@[::1]/w", PollAddress("any", "[::1]", "w")),
        ("poll://ANY@g", None),
        ("poll://any@g g/w", None),
        ("poll:any@g", None),
        ("http://any@g/w", None),
    ],
)
def test_parse_poll(address: str, expected: PollAddress | None) -> None:
    """A poll address names a cast, a group and perhaps a connection."""
    assert expected == parse_poll(address)


@pytest.mark.parametrize(
    "address",
    ["http:h", "https:///x", "HTTP://u:p@h:1/p?q#f", "http://[::1]:80", "gcps://p/t", "bash:", "bash://docker/img"],
)
def test_valid(address: str) -> None:
    """The URL forms of the servers are accepted."""
    assert valid_address(address)


@pytest.mark.parametrize(
    "address",
    ["", " ", "g", "any@g", "http:", "http://", "http://h:x", "http://a b", "gcps://p", "gcps://p/", "nats://x", "1:x"],
)
def test_invalid(address: str) -> None:
    """What nothing could be sent to is refused."""
    assert not valid_address(address)
