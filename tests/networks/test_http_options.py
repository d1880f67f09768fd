"""The options of an HTTP network: refused where they are given, in words that help and tell no secret."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from resonate_anyio import InvalidArgument
from resonate_anyio.networks import HttpNetwork


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8001", "http://localhost:8001"),
        ("https://example.org/", "https://example.org"),
        ("http://[::1]:8001/", "http://[::1]:8001"),
        ("HTTP://Example.org", "http://Example.org"),
    ],
)
def test_a_url_says_where_the_server_is(url: str, expected: str) -> None:
    """Scheme, host and port, with or without a slash."""
    assert expected == HttpNetwork(url).url


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("localhost:8001", "such as http://"),
        ("", "such as http://"),
        ("ftp://host", "such as http://"),
        ("http://", "such as http://"),
        ("http://host:port", "such as http://"),
        ("http://host:99999", "such as http://"),
        ("http://ho st", "such as http://"),
        ("http://host\n", "such as http://"),
        (None, "such as http://"),
        ("http://host/api", "e.g. http://host,"),
        ("http://host/?x=y", "e.g. http://host,"),
        ("http://host#x", "e.g. http://host,"),
        ("http://me:hidden@host", "give token="),
        ("ftp://me:hidden@host", "such as http://"),
        ("http://me:hidden@host/api", "give token="),
    ],
)
def test_an_unusable_url_is_refused(url: Any, hint: str) -> None:
    """The error shows a good one, and no password."""
    with pytest.raises(InvalidArgument) as caught:
        HttpNetwork(url)

    assert hint in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"token": "hidden\n"}, "token"),
        ({"headers": {"X": "\r\nhidden"}}, "'X'"),
        ({"headers": {"": "x"}}, "''"),
        ({"headers": {"X": 7}}, "'X'"),
        ({"headers": {"authorization": "Basic hidden"}, "token": "hidden"}, "give one of the two"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"request_timeout": -1}, "request_timeout"),
        ({"request_timeout": float("inf")}, "request_timeout"),
        ({"request_timeout": True}, "request_timeout"),
        ({"max_body": 0}, "max_body"),
        ({"max_body": 1.5}, "max_body"),
        ({"proxy": "localhost:8080"}, "proxy"),
        ({"proxy": "ftp://me:hidden@proxy"}, "proxy"),
        ({"verify": "nowhere.pem"}, "verify='nowhere.pem'"),
        ({"verify": 7}, "verify"),
        ({"cert": "nowhere.pem"}, "cert=('nowhere.pem',)"),
        ({"cert": ("nowhere.pem", "nowhere.key", "hidden")}, "cert="),
        ({"cert": "nowhere.pem", "verify": ssl.create_default_context()}, "load_cert_chain"),
    ],
)
def test_an_unusable_option_is_refused(options: dict[str, Any], hint: str) -> None:
    """Each is named in the error, which tells no secret."""
    with pytest.raises(InvalidArgument) as caught:
        HttpNetwork("https://host", **options)

    assert hint in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    """What a file should be is said where it is named, not at the first connection."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")

    with pytest.raises(InvalidArgument, match=r"ca\.pem"):
        HttpNetwork("https://host", verify=file)


def test_nothing_shows_the_options() -> None:
    """The repr says where the network leads."""
    network = HttpNetwork("http://host", token="hidden", headers={"X-Key": "other"}, proxy="http://me:hidden@proxy")

    assert "<HttpNetwork to http://host>" == repr(network)


def test_heartbeats_of_an_own_client_are_on_the_loop_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever passes an asynchronous client and no synchronous one is told what that means."""
    with caplog.at_level(logging.WARNING, "resonate_anyio"):
        HttpNetwork("http://host", client=httpx.AsyncClient())
        [record] = caplog.records
        HttpNetwork("http://host", client=httpx.AsyncClient(), sync_client=httpx.Client())

    assert "sync_client=" in record.getMessage()
    assert [record] == caplog.records
