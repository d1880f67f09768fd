"""The token is sent with everything and shown nowhere: not in logs, errors, reprs or traces, whatever goes wrong."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MethodType
from typing import Any, Final

import anyio
import httpx
import pytest
from prometheus_client import generate_latest

from resonate_anyio import NetworkError, RequestError, Resonate
from resonate_anyio.abc import Clock
from resonate_anyio.networks import HttpNetwork
from resonate_anyio.server import Auth, Metrics, Trace

from ..server.tokens import Mint
from .job import FAR, job
from .play import Story, play
from .processes import deadline, served
from .site import Site
from .test_each_fault import KINDS
from .weather import Effect, Trick, Trouble, always

CANARY: Final = Mint(now=4_000_000_000).unsigned("HS256", "canary" * 20, sub="canary" * 60, role="admin")
"""The token, as long as real ones. Nothing else looks like any part of it."""

PARTS: Final = {CANARY[start : start + 16] for start in range(len(CANARY) - 15)}
"""Every part of it that is worth something to somebody."""


class Everything(logging.Handler):
    """Keeps every record of every logger, as the most talkative formatter would show it."""

    def __init__(self) -> None:
        super().__init__(level=1)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = "" if record.exc_info is None else "".join(traceback.format_exception(record.exc_info[1]))
        self.lines.append(f"{record.getMessage()} {record.__dict__!r} {text}")


@pytest.fixture
def options(clock: Clock, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A server that asks for tokens, and that records and counts."""
    with Trace(tmp_path / "trace.jsonl") as trace:
        yield {"auth": Auth(publickey="none", clock=clock), "trace": trace, "metrics": Metrics()}


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged, at any level, by anybody."""
    root, handler = logging.getLogger(), Everything()
    loggers = [root, *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    levels = {logger: logger.level for logger in loggers}
    for logger in loggers:
        logger.setLevel(1)
    root.addHandler(handler)
    yield handler.lines
    root.removeHandler(handler)
    for logger, level in levels.items():
        logger.setLevel(level)


def shown(error: BaseException) -> Iterator[str]:
    """Everything that an error can be made to say."""
    yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
    yield "".join(traceback.format_exception(error))


def ours(root: object) -> Iterator[object]:
    """Every object of this package that can be reached from `root` by way of attributes and containers."""
    seen: set[int] = set()
    left: list[object] = [root]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, (str, bytes, int, float, type)):
            continue
        seen.add(id(each))
        if type(each).__module__.startswith("resonate_anyio"):
            yield each
        left.extend(_parts(each))


def _parts(each: object) -> Iterable[object]:
    if isinstance(each, Mapping):
        return [*each.keys(), *each.values()]
    if isinstance(each, (list, tuple, set, frozenset)):
        return list(each)
    if not type(each).__module__.startswith("resonate_anyio"):
        # a method that is bound to one of ours
        return [each.__self__] if isinstance(each, MethodType) else []
    names = {name for kind in type(each).__mro__ for name in getattr(kind, "__slots__", ())}
    return [getattr(each, name) for name in {*getattr(each, "__dict__", {}), *names} if hasattr(each, name)]


def leaks(texts: Iterable[str]) -> list[str]:
    """Those that tell the token, or a part of it."""
    return [text for text in texts if any(part in text for part in PARTS)]


def check_silent(story: Story, logged: list[str]) -> None:
    """See that nothing of the story tells the token, and that there was something that could have."""
    assert [] == leaks(logged)
    assert [] == leaks(text for error in story.errors for text in shown(error))
    assert logged


def test_the_walk_finds_what_would_tell() -> None:
    """An object far inside is reached, and what it shows is looked at."""
    network = HttpNetwork("http://server", token=CANARY)
    found = {type(each).__name__ for each in ours(Resonate(network=network))}
    assert {"Resonate", "Settings", "HttpNetwork", "Token"} <= found
    network.url = CANARY
    assert 1 == len(leaks(map(repr, ours(network))))


@pytest.mark.parametrize("settings", [{"url": "http://server"}, {}])
def test_nothing_that_is_made_shows_the_token(settings: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that hold the token do not show it, wherever they have it from."""
    monkeypatch.setenv("RESONATE_URL", "http://server")
    monkeypatch.setenv("RESONATE_TOKEN", CANARY)
    assert [] == leaks(map(repr, ours(Resonate(**settings))))


async def test_nothing_that_runs_shows_the_token(
    clock: Clock, logged: list[str], options: dict[str, Any], tmp_path: Path
) -> None:
    """Not the objects of a program at work and of the server, nor what they log, record and count."""
    async with (
        Site.open(clock, **options) as site,
        site.client("near", token=CANARY) as resonate,
        site.client("far", group=FAR, token=CANARY),
    ):
        handle = await resonate.run("job", job).spawn()
        await anyio.sleep(50)
        assert [] == leaks(map(repr, ours(resonate)))
        assert [] == leaks(map(repr, ours(handle)))
        assert [] == leaks(map(repr, ours(options)))
    trace = (tmp_path / "trace.jsonl").read_text(encoding="utf-8")
    assert [] == leaks([*logged, trace, generate_latest(options["metrics"]._registry).decode()])
    assert "task.create" in trace


@pytest.mark.parametrize("token", [CANARY[20:], "x" + CANARY, CANARY.replace(".", ":")])
async def test_a_token_that_is_refused_is_not_shown_either(
    clock: Clock, logged: list[str], options: dict[str, Any], token: str
) -> None:
    """Who is not let in is told so, and neither side shows what it was that was refused."""
    async with Site.open(clock, **options) as site:
        with pytest.raises(RequestError, match="401") as caught:
            async with site.client("near", token=token):
                pass
    assert [] == leaks([*logged, *shown(caught.value)])


@pytest.mark.parametrize("effect", Effect)
async def test_no_fault_of_a_request_tells_the_token(
    clock: Clock, logged: list[str], options: dict[str, Any], effect: Effect
) -> None:
    """Not even a server that repeats it in its answers makes it appear."""
    troubles = [Trouble(what=effect, kind=kind, seconds=20) for kind in KINDS]
    story = await play(clock, *troubles, options=options, token=CANARY)
    check_silent(story, logged)
    # Late answers change what is said after them.
    assert len(troubles) - 2 <= len(story.site.weather.happened)


@pytest.mark.parametrize("trick", Trick)
async def test_no_fault_of_a_stream_tells_the_token(
    clock: Clock, logged: list[str], options: dict[str, Any], trick: Trick
) -> None:
    """Nor do messages."""
    story = await play(clock, Trouble(what=trick, times=3, seconds=20), options=options, token=CANARY)
    check_silent(story, logged)
    assert story.site.weather.happened


@pytest.mark.parametrize("effect", [effect for effect in Effect if effect.early])
async def test_no_error_of_the_client_tells_the_token(clock: Clock, logged: list[str], effect: Effect) -> None:
    """What a program is told when nothing answers names the request and not the token."""
    async with Site.open(clock) as site, site.client("near", token=CANARY) as resonate:
        site.weather.expect(always(effect))
        with pytest.raises((NetworkError, RequestError)) as caught:
            await resonate.promises.get("p")
        site.weather.clear()
    assert [] == leaks(shown(caught.value))
    assert [] == leaks(logged)


@pytest.mark.wall
async def test_no_file_and_no_output_of_a_server_tells_the_token(logged: list[str], tmp_path: Path) -> None:
    """Neither the database, the record, the numbers nor what is printed, over real sockets and with heartbeats."""
    file, trace, errors = (tmp_path / name for name in ("server.db", "trace.jsonl", "errors"))
    options = ("--auth-publickey", "none", "--trace", trace, "--metrics-port", 0, "--debug")
    async with deadline(100), served(file, *options, errors=errors) as server:
        network = HttpNetwork(server.url, token=CANARY, request_timeout=0.3)
        resonate = Resonate(network=network, ttl=1.2)
        resonate.register(nap)
        async with resonate:
            assert await resonate.run("p", nap) == "woken"
        with pytest.raises(RequestError, match="401"):
            async with Resonate(server.url, token=CANARY.replace(".", ":")):
                pass
        [numbers] = re.findall(r"metrics on (\S+)", server.told.text)
        async with httpx.AsyncClient() as browser:
            counted = (await browser.get(numbers)).text
    assert "task.heartbeat" in trace.read_text(encoding="utf-8")
    assert "task.heartbeat" in counted
    assert [] == leaks([*logged, *texts(tmp_path), counted, server.told.text])


def texts(folder: Path) -> list[str]:
    """What is in its files."""
    return [path.read_bytes().decode(errors="replace") for path in folder.iterdir()]


async def nap() -> str:
    """Outlive a few heartbeats."""
    await anyio.sleep(1.5)
    return "woken"
