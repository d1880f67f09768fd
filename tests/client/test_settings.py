"""Where a client's settings come from, and which are refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from resonate_anyio import InvalidArgument, Resonate, UsageError
from resonate_anyio.networks import HttpNetwork, LocalNetwork
from resonate_anyio.stores import MemoryStore


def refusal(*args: Any, **settings: Any) -> str:
    """What is said to a user whose settings contradict each other."""
    with pytest.raises(UsageError) as caught:
        Resonate(*args, **settings)

    return str(caught.value)


def server(client: Resonate) -> str:
    """The address of the server that the client was made for."""
    network = client._network
    assert isinstance(network, HttpNetwork)
    return network.url


def sent_token(client: Resonate) -> str | None:
    """The token that the client would send."""
    network = client._network
    assert isinstance(network, HttpNetwork)
    return network._terms.token.text


def test_a_url_asks_for_a_server() -> None:
    """The address of a server makes a network that leads to it."""
    assert "https://argument" == server(Resonate("https://argument/"))


def test_the_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A url that is given wins over RESONATE_URL and RESONATE_HOST."""
    monkeypatch.setenv("RESONATE_URL", "http://from-url:2")
    monkeypatch.setenv("RESONATE_HOST", "from-host")

    assert "http://argument:1" == server(Resonate("http://argument:1"))


def test_resonate_url_goes_before_resonate_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """RESONATE_URL wins over RESONATE_HOST."""
    monkeypatch.setenv("RESONATE_URL", "http://from-url:2")
    monkeypatch.setenv("RESONATE_HOST", "from-host")

    assert "http://from-url:2" == server(Resonate())


@pytest.mark.parametrize(
    ("scheme", "port", "expected"),
    [
        (None, None, "http://from-host:8001"),
        (None, "9", "http://from-host:9"),
        ("https", "9", "https://from-host:9"),
        ("", "", "http://from-host:8001"),
    ],
)
def test_resonate_scheme_host_and_port_make_a_url(
    monkeypatch: pytest.MonkeyPatch, scheme: str | None, port: str | None, expected: str
) -> None:
    """RESONATE_HOST asks for a server at RESONATE_PORT, or at 8001, by RESONATE_SCHEME, or http."""
    monkeypatch.setenv("RESONATE_HOST", "from-host")
    for name, value in (("RESONATE_SCHEME", scheme), ("RESONATE_PORT", port)):
        if value is not None:
            monkeypatch.setenv(name, value)

    assert expected == server(Resonate())


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"RESONATE_URL": "somewhere"}, "from RESONATE_URL: "),
        ({"RESONATE_HOST": "h", "RESONATE_PORT": "http"}, "_PORT: "),
        ({"RESONATE_URL": "http://h", "RESONATE_TOKEN": "a\nb"}, "token"),
    ],
)
def test_an_unusable_variable_is_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str) -> None:
    """What cannot be the address of a server is refused at once, with where it came from."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(InvalidArgument, match=named):
        Resonate()


@pytest.mark.parametrize("name", ["RESONATE_URL", "RESONATE_HOST", "RESONATE_PORT"])
def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable that is set to nothing asks for no server."""
    monkeypatch.setenv(name, "")

    Resonate()


def test_a_port_alone_asks_for_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """RESONATE_PORT says nothing without RESONATE_HOST."""
    monkeypatch.setenv("RESONATE_PORT", "8001")

    Resonate()


def test_a_url_that_was_an_argument_is_not_blamed_on_the_environment() -> None:
    """A variable is named only if the address came from it."""
    with pytest.raises(InvalidArgument) as caught:
        Resonate("argument")

    assert "RESONATE" not in str(caught.value)


@pytest.mark.parametrize("setting", ["store", "network", "local"])
def test_an_explicit_engine_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """A store, a network and `Resonate.local()` are used whatever the environment says."""
    monkeypatch.setenv("RESONATE_URL", "http://from-url:2")

    match setting:
        case "store":
            Resonate(store=MemoryStore())
        case "network":
            Resonate(network=LocalNetwork(MemoryStore()))
        case _:
            Resonate.local()


@pytest.mark.parametrize(
    "names", [("url", "store"), ("url", "network"), ("store", "network"), ("url", "store", "network")]
)
def test_places_that_contradict_each_other_are_refused(names: tuple[str, ...]) -> None:
    """url, store and network all say where promises are kept: two of them are an error that names them."""
    places = {"url": "http://argument:1", "store": MemoryStore(), "network": LocalNetwork(MemoryStore())}

    text = refusal(**{name: places[name] for name in names})

    assert all(name in text for name in names)
    assert "give one" in text


def test_the_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the client nor anything that it holds prints the token."""
    monkeypatch.setenv("RESONATE_TOKEN", "secret-of-the-environment")
    clients = [Resonate("http://server", token="secret-argument"), Resonate("http://server"), Resonate()]

    texts = [text for client in clients for text in (repr(client), str(client), repr(vars(client)))]
    texts += [repr(vars(client._network)) for client in clients]

    assert not any("secret" in text for text in texts)


@pytest.mark.parametrize(
    ("argument", "variable", "expected"),
    [("a", "b", "a"), (None, "b", "b"), (None, "", None), (None, None, None), ("a", None, "a")],
)
def test_the_token_comes_from_the_argument_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, variable: str | None, expected: str | None
) -> None:
    """An argument wins over RESONATE_TOKEN; without both there is none."""
    if variable is not None:
        monkeypatch.setenv("RESONATE_TOKEN", variable)

    assert expected == sent_token(Resonate("http://server", token=argument))


@pytest.mark.parametrize("place", ["store", "network", "nowhere"])
def test_a_token_for_no_server_is_refused(place: str) -> None:
    """A token that would be sent nowhere is a mistake, and the error says where it belongs, without telling it."""
    places = {"store": MemoryStore(), "network": LocalNetwork(MemoryStore())}

    text = refusal(token="secret", **{name: value for name, value in places.items() if name == place})

    assert ("HttpNetwork(url, token=...)" if place == "network" else "give url=") in text
    assert "secret" not in text


def test_a_token_in_the_environment_is_for_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """RESONATE_TOKEN means nothing to an embedded engine."""
    monkeypatch.setenv("RESONATE_TOKEN", "secret")

    assert isinstance(Resonate()._network, LocalNetwork)


@pytest.mark.parametrize(("timeout", "ttl", "fits"), [(10, 40, True), (10, 39.9, False), (2.5, 10, True)])
def test_a_lease_outlasts_requests_by_far(timeout: float, ttl: float, fits: bool) -> None:
    """The ttl is at least four times as long as a request may take; the error says how long."""
    network = HttpNetwork("http://server", request_timeout=timeout)
    if fits:
        Resonate(network=network, ttl=ttl)
        return

    with pytest.raises(InvalidArgument, match="give ttl=40 or more"):
        Resonate(network=network, ttl=ttl)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": -1}, "-1"),
        ({"ttl": "60"}, "'60'"),
        ({"grace": -1}, "-1"),
        ({"grace": timedelta(seconds=-1)}, "negative"),
        ({"threads": 0}, "threads"),
        ({"threads": True}, "True"),
        ({"threads": 1.5}, "1.5"),
        ({"hot_for": -1}, "-1"),
        ({"hot_for": "60"}, "'60'"),
        ({"hot_limit": -1}, "hot_limit"),
        ({"hot_limit": 1.5}, "1.5"),
        ({"parked_limit": True}, "parked_limit"),
        ({"group": "a b"}, "group"),
        ({"group": "a/b"}, "'a/b'"),
        ({"pid": "é"}, "pid"),
        ({"pid": 7}, "pid"),
    ],
)
def test_unusable_settings_are_refused_by_name(settings: dict[str, Any], hint: str) -> None:
    """Each unusable setting is refused when the client is made, with its name or its value in the error."""
    with pytest.raises(InvalidArgument) as caught:
        Resonate.local(**settings)

    assert hint in str(caught.value)


def test_durations_may_be_timedeltas() -> None:
    """Ttl, grace and hot_for are seconds or a timedelta."""
    Resonate.local(ttl=timedelta(minutes=5), grace=timedelta(0), hot_for=timedelta(minutes=1))


def test_a_client_says_who_it_is() -> None:
    """The repr shows group, pid and whether it runs."""
    client = Resonate.local(group="workers", pid="me")

    assert repr(client) == "<Resonate workers/me not running>"


def test_two_clients_have_two_pids() -> None:
    """Processes without a pid get different ones: they are routed by it."""
    assert repr(Resonate.local()) != repr(Resonate.local())


@pytest.mark.parametrize("prefix", ["prod.", "prod:x", "a.b-", ":prod-", "a:b:"])
def test_a_prefix_with_a_separator_is_refused_with_a_proposal(prefix: str) -> None:
    """`.` and `:` separate ids, so a prefix must not contain them; the error proposes `-`."""
    with pytest.raises(InvalidArgument) as caught:
        Resonate.local(prefix=prefix)

    assert repr(prefix) in str(caught.value)
    assert repr(prefix.replace(".", "-").replace(":", "-")) in str(caught.value)


def test_a_refused_prefix_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """RESONATE_PREFIX is held to the same rules."""
    monkeypatch.setenv("RESONATE_PREFIX", "prod.")

    with pytest.raises(InvalidArgument, match="'prod-'"):
        Resonate()
