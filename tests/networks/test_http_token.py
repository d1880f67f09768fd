"""The token: what it may be, what it tells, and that it is not told."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

import pytest

from resonate_anyio import InvalidArgument
from resonate_anyio.networks._token import Token


def jwt(claims: object) -> str:
    """An unsigned token."""
    header, payload = (urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims))
    return f"{header}.{payload}.signature"


def test_a_token_is_not_shown() -> None:
    """Neither its repr nor its str tells it, and texts that repeat it lose it."""
    token = Token("s3cret")

    assert "s3cret" not in f"{token!r} {token}"
    assert "no [token] for [token]s" == token.redacted("no s3cret for s3crets")


def test_a_token_goes_into_a_header_and_the_envelope() -> None:
    """The poll reads the one, requests the other (docs/protocol.md 4). White space around it is not part of it."""
    token = Token(" s3cret\t".replace("\t", " "))

    assert {"Authorization": "Bearer s3cret"} == token.headers
    assert "s3cret" == token.text


def test_without_a_token_nothing_is_sent_and_nothing_is_cut() -> None:
    """None is not an empty text, which would be found everywhere."""
    token = Token(None)

    assert {} == token.headers
    assert token.text is None
    assert "abc" == token.redacted("abc")
    assert "" == token.prefix


@pytest.mark.parametrize("text", ["", " ", "a\nb", "a\r\nX: y", "a\n", "\tab", "é", "a\x00b", 7])
def test_what_no_header_can_hold_is_refused_untold(text: str) -> None:
    """A line break would end the header; the error does not repeat what it refuses."""
    with pytest.raises(InvalidArgument) as caught:
        Token(text)

    assert "token" in str(caught.value)
    assert not str(text).strip() or str(text) not in str(caught.value)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"prefix": "app1"}, "app1"),
        ({"prefix": "ä~>?"}, "ä~>?"),
        ({"prefix": ""}, ""),
        ({}, ""),
        ({"prefix": 7}, ""),
        ({"prefix": "app1", "role": "Admin"}, ""),
        ({"prefix": "app1", "role": 7}, "app1"),
        (["prefix"], ""),
    ],
)
def test_the_prefix_of_a_token_is_its_claim(claims: object, expected: str) -> None:
    """A JWT says what ids it is good for; an administrator's is good for all."""
    assert expected == Token(jwt(claims)).prefix


@pytest.mark.parametrize("text", ["opaque", "a.b.c", "..", "a.!!!.c", "a." + "W1" * 50000 + ".c", "a.gICA.c"])
def test_another_kind_of_token_has_no_prefix(text: str) -> None:
    """What is no JWT says nothing, and is no error."""
    assert "" == Token(text).prefix


def test_an_excerpt_is_cut_after_the_token_was_taken_out() -> None:
    """Half a token would not be found any more."""
    excerpt = Token("s3cret").excerpt("x" * 197 + "s3cret" + "y" * 1000)

    assert "x" * 197 + "[to..." == excerpt
    assert "short" == Token("s3cret").excerpt("short")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("no s3cre", "no "), ("no s3cret!", "no [token]!"), ("no s3c", "no s3c"), ("s3cr s3cr", "s3cr ")],
)
def test_an_excerpt_does_not_end_with_half_a_token(text: str, expected: str) -> None:
    """A text that broke off may have its beginning at the end; a few characters of it tell nothing."""
    assert expected == Token("s3cret").excerpt(text)
