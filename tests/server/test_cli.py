"""The program `resonate-anyio`, as a process behind a socket."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import resonate_anyio.cli
from resonate_anyio.server._serve import _GRACE

from .served import run, served
from .tokens import Mint, write_public_key

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
FAR = 4_000_000_000_000


def envelope(kind: str, auth: str | None = None, **data: Any) -> dict[str, Any]:
    head = {"corrId": "c", "version": "2026-04-01"}
    return {"kind": kind, "head": head if auth is None else head | {"auth": auth}, "data": data}


def create(id: str, **tags: str) -> dict[str, Any]:
    return envelope("promise.create", id=id, timeoutAt=FAR, tags={f"resonate:{name}": tags[name] for name in tags})


@pytest.mark.wall
@BACKENDS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_stops(backend: str, number: int) -> None:
    """It answers requests, keeps connections, sends messages; on a signal it ends its streams whole, and itself."""
    with served("--backend", backend) as server, httpx.Client(base_url=server.url) as client:
        assert 200 == client.post("/", json=create("t", target="poll://any@g")).status_code
        with client.stream("GET", "/poll/g/w") as response:
            lines = response.iter_lines()
            assert {"serverUrl": server.url} == json.loads(next(lines).removeprefix("data: "))["head"]
            assert "" == next(lines)
            began = time.monotonic()
            assert (0, "") == server.stop(number)
            assert [] == list(lines)
            # Nobody was waited for until the server lost its patience.
            assert time.monotonic() - began < _GRACE


@pytest.mark.wall
@BACKENDS
def test_a_file(backend: str, tmp_path: Path) -> None:
    """What one server wrote to a file the next one reads; while it runs, nobody else may have the file."""
    path = tmp_path / "engine.db"
    for durability in ("process", "power"):
        with served(path, "--backend", backend, "--durability", durability) as server:
            answer = httpx.post(server.url, json=create("p", mark=durability)).json()
            assert {"resonate:mark": "process"} == answer["data"]["promise"]["tags"]
            code, _, errors = run("dev", path, "--port", "0")
            assert (1, 1) == (code, len(errors.splitlines()))
            assert f"{path} is in use by process {server.process.pid}" in errors
            assert (0, "") == server.stop()


@pytest.mark.wall
@BACKENDS
def test_keys_traces_and_metrics(backend: str, tmp_path: Path) -> None:
    """Tokens are checked, exchanges recorded, requests counted; nothing of it shows a token."""
    trace, key = tmp_path / "trace.jsonl", write_public_key(tmp_path, "ed25519")
    arguments = ("--auth-publickey", key, "--auth-iss", "me", "--auth-aud", "us", "--trace", trace)
    token = Mint(FAR // 1000, "ed25519", "EdDSA").signed(role="admin", iss="me", aud=["us"])
    stranger = Mint(FAR // 1000, "ed25519", "EdDSA").signed(role="admin", iss="you", aud=["us"])
    with served("--backend", backend, "--metrics-port", 0, *arguments) as server:
        assert [404, 401, 401] == [
            httpx.post(server.url, json=envelope("promise.get", auth, id="p")).status_code
            for auth in (token, stranger, None)
        ]
        bearers = {"Authorization": f"Bearer {stranger}"}
        assert 401 == httpx.get(f"{server.url}/poll/g/w", headers=bearers).status_code
        assert server.metrics_url is not None
        counted = httpx.get(server.metrics_url).text
        assert 'resonate_request_total{kind="promise.get",status="401"} 2.0' in counted.splitlines()
        assert 404 == httpx.get(f"{server.url}/metrics").status_code
        code, errors = server.stop()

    [line] = trace.read_text().splitlines()
    assert ["promise.get", {"id": "p"}] == [json.loads(line)["kind"], json.loads(line)["req"]]
    assert (0, "") == (code, errors)
    assert [] == [part for part in (*token.split("."), *stranger.split(".")[1:]) if part in line + counted]


@pytest.mark.wall
@pytest.mark.parametrize(
    ("rules", "statuses"),
    [
        ("embedded", [200, 200, 200, 200]),
        ("release", [200, 200, 200, 200]),
        ("snapshot", [200, 400, 200, 400]),
        ("announced", [400, 200, 200, 400]),
        ("specified", [400, 200, 400, 400]),
    ],
)
def test_rules(rules: str, statuses: list[int]) -> None:
    """The rules that were asked for decide which ids go together, what a timer may be, what an origin may hold."""

    def beat(*ids: str) -> dict[str, Any]:
        return envelope("task.heartbeat", pid="w", tasks=[{"id": id, "version": 1} for id in ids])

    requests = [
        beat("a.x", "a.y"),
        beat("a:x", "a:y"),
        create("t", timer="true", target="poll://any@g"),
        create("x", origin="y"),
    ]
    with served("--rules", rules) as server, httpx.Client(base_url=server.url) as client:
        assert statuses == [client.post("/", json=request).status_code for request in requests]


@pytest.mark.wall
def test_debug() -> None:
    """Virtual time is there if it is asked for, and only then."""
    for arguments, status in (((), 403), (("--debug",), 200)):
        with served(*arguments) as server:
            assert status == httpx.post(server.url, json=envelope("debug.start")).status_code


@pytest.mark.wall
def test_many_requests_on_one_connection() -> None:
    """A connection is kept for as long as its client likes."""
    with served() as server, socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as raw:
        answers = raw.makefile("rb")
        for _ in range(1_200):
            raw.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert answers.readline().startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in list(iter(answers.readline, b"\r\n"))


@pytest.mark.wall
def test_a_port_that_is_taken() -> None:
    """Somebody else's port is named in one line."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, output, errors = run("dev", "--port", port)
    assert (1, "", f"resonate-anyio: cannot listen on 127.0.0.1:{port}: Address already in use\n") == (
        code,
        output,
        errors,
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--host", "::x"), "cannot listen on [::x]:8001: "),
        (("--auth-publickey", "nowhere.pem"), "the public key nowhere.pem cannot be read"),
        (("--trace", "nowhere/trace"), "nowhere/trace"),
        (("--port", "0", "--allow-host", "http://h"), "'http://h' is not a host"),
        (("--port", "0", "--allow-origin", "*"), "'*' is not an origin"),
        (("nowhere/engine.db", "--port", "0"), "nowhere/engine.db"),
    ],
)
def test_what_cannot_be_had(
    arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    """Whatever cannot be had is named in one line, without a traceback."""
    monkeypatch.chdir(tmp_path)

    assert 1 == resonate_anyio.cli.main(["dev", *arguments])

    errors = capsys.readouterr().err
    assert errors.startswith("resonate-anyio: ")
    assert text in errors
    assert 1 == len(errors.splitlines())


@pytest.mark.parametrize(("module", "extra"), [("hypercorn", "server"), ("jwt", "server"), ("trio", "trio")])
@pytest.mark.wall
def test_without_an_extra(module: str, extra: str) -> None:
    """A library that is not installed is named, with what to install."""
    code = f"import sys; sys.modules[{module!r}] = None; from resonate_anyio.cli import main; sys.exit(main())"

    status, _, errors = run("dev", "--port", "0", "--backend", "trio" if module == "trio" else "asyncio", code=code)

    assert (1, 1) == (status, len(errors.splitlines()))
    assert f"needs {module}" in errors
    assert f"pip install 'resonate-anyio[{extra}]'" in errors


@pytest.mark.wall
def test_open_to_others() -> None:
    """Who listens for others is told what they may do, and by which names they may not come yet."""
    with served("--host", "0.0.0.0") as server:  # noqa: S104
        port = int(server.url.rpartition(":")[2])
        assert 200 == httpx.get(f"http://127.0.0.1:{port}/health").status_code
        refused = httpx.get(f"http://127.0.0.1:{port}/health", headers={"host": f"resonate:{port}"})
        assert 403 == refused.status_code
        assert "--allow-host resonate " in refused.text
        code, errors = server.stop()
    assert (0, 2) == (code, len(errors.splitlines()))
    assert "may do everything: see --auth-publickey" in errors
    assert "see --allow-host" in errors

    with served("--host", "0.0.0.0", "--allow-host", "resonate") as server:  # noqa: S104
        port = int(server.url.rpartition(":")[2])
        headers = {"host": f"resonate:{port}"}
        assert 200 == httpx.get(f"http://127.0.0.1:{port}/health", headers=headers).status_code
        code, errors = server.stop()
    assert (0, 1) == (code, len(errors.splitlines()))


@pytest.mark.wall
@BACKENDS
def test_web_pages(backend: str) -> None:
    """Pages are refused at both ports; the names and origins of the command line are let in."""
    arguments = ("--allow-host", "resonate", "--allow-host", "other", "--allow-origin", "https://my.example")
    with served("--backend", backend, "--metrics-port", 0, *arguments) as server:
        assert server.metrics_url is not None
        for url in (f"{server.url}/health", server.metrics_url):
            for name, value, status in (
                ("host", "evil.example", 403),
                ("host", "resonate:1", 200),
                ("host", "other", 200),
                ("host", "localhost", 200),
                ("origin", "https://evil.example", 403),
                ("origin", "null", 403),
                ("sec-fetch-site", "cross-site", 403),
                ("sec-fetch-site", "same-origin", 200),
            ):
                assert status == httpx.get(url, headers={name: value}).status_code, (url, value)
        mine = {"origin": "https://my.example"}
        shared = httpx.get(f"{server.url}/health", headers=mine)
        assert "https://my.example" == shared.headers["access-control-allow-origin"]
        assert 403 == httpx.get(server.metrics_url, headers=mine).status_code
        assert (0, "") == server.stop()


@pytest.mark.parametrize("arguments", [(), ("dev", "--port", "99999"), ("dev", "--rules", "mine"), ("serve",)])
def test_bad_arguments(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be understood is answered with how it is used."""
    with pytest.raises(SystemExit, match="2"):
        resonate_anyio.cli.main(arguments)
    assert "usage: resonate-anyio" in capsys.readouterr().err
