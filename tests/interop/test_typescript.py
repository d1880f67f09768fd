"""The public TypeScript SDK as a client and as a worker, beside ours, on a `resonate-anyio dev` of this project.

Node has to be installed, and the package registry in reach; else these tests are skipped, with the reason.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4

import anyio
import pytest
from attrs import frozen

from resonate_anyio import ApplicationError, Resonate

from .functions import ARGUMENTS, RESULTS, flow, offer

SOURCES: Final = Path(__file__).with_name("typescript")
VERSIONS: Final = ("0.11.4", "0.11.5")
UNREACHABLE: Final = {
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "ENOTFOUND",
    "ETIMEDOUT",
    "EHOSTUNREACH",
}
INSTALL_LIMIT: Final = 60

Process: TypeAlias = "subprocess.Popen[str]"

pytestmark = pytest.mark.wall(limit=300)


@pytest.fixture(scope="session")
def node_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs in `typescript` and the SDKs that they use."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        pytest.skip(f"Node {version} is too old for the SDK")
    folder = tmp_path_factory.mktemp("typescript") / "programs"
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the package registry did not answer within {INSTALL_LIMIT} seconds")
    if found := UNREACHABLE.intersection(re.findall(r"\bE[A-Z_]+\b", done.stderr) if done.returncode else ()):
        pytest.skip(f"the package registry cannot be reached: {', '.join(found)}")
    assert done.returncode == 0, done.stderr
    return folder


@frozen
class Peer:
    """A server, with a worker of the TypeScript SDK that is its group `ts`.

    Attributes:
        url: the address of the server.
        sdk: the package of the SDK.
        programs: where its programs are.
    """

    url: str
    sdk: str
    programs: Path

    async def call(self, *calls: dict[str, Any]) -> list[Any]:
        """Make calls of our group `py` with the TypeScript client, and give what came of each."""
        arguments = [self.sdk, self.url, "py", new_id(), *map(json.dumps, calls)]
        done = await anyio.run_process(["node", "client.mjs", *arguments], cwd=self.programs)
        return [json.loads(line) for line in done.stdout.decode().splitlines()]


@pytest.fixture(params=VERSIONS, scope="module")
def peer(request: pytest.FixtureRequest, node_programs: Path) -> Iterator[Peer]:
    """A server of its own for each version of the SDK, with a worker."""
    with ExitStack() as stack:
        dev = [sys.executable, "-m", "resonate_anyio", "dev", "--port", "0"]
        url = stack.enter_context(started(dev, node_programs, r"listening on (\S+)"))
        sdk = f"sdk-{request.param}"
        stack.enter_context(started(["node", "worker.mjs", sdk, url, "ts"], node_programs, "(started)"))
        yield Peer(url, sdk, node_programs)


@contextmanager
def started(command: list[str], folder: Path, says: str) -> Iterator[str]:
    """A process, once it has said what it is expected to say; gives the part in parentheses."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True, env=environment)
    try:
        assert process.stdout is not None
        found = next(filter(None, (re.search(says, line) for line in process.stdout)), None)
        assert found is not None, f"{command} ended"
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=100)


@pytest.fixture
def make(peer: Peer) -> Callable[[], Resonate]:
    """Make a worker of ours that is the group `py` of the peer's server."""

    def make() -> Resonate:
        resonate = Resonate(peer.url, group="py")
        offer(resonate, "py")
        resonate.register(flow)
        return resonate

    return make


def new_id() -> str:
    """An id that nobody else has."""
    return uuid4().hex


async def test_we_call_typescript(make: Callable[[], Resonate]) -> None:
    """`resonate.rpc` gives what a function of TypeScript gives; undefined and null are None."""
    async with make() as resonate:

        async def call(name: str, *args: object, type_: Any = Any, version: int = 1) -> Any:
            return await resonate.rpc(new_id(), f"ts_{name}", *args).target("ts").returns(type_).version(version)

        for name, expected in RESULTS.items():
            assert expected == await call(name, *ARGUMENTS[name])
        assert await call("null", None) is None
        assert [math.inf, -math.inf] == [await call("infinity", negative, type_=float) for negative in (False, True)]
        assert [1, 2] == [await call("version", version=version) for version in (1, 2)]


async def test_errors_of_typescript_reach_us(make: Callable[[], Resonate]) -> None:
    """What TypeScript throws is an `ApplicationError` here, with its name, message and stack, or whatever it is."""
    async with make() as resonate:

        async def fail(name: str, *args: object) -> ApplicationError:
            with pytest.raises(ApplicationError) as caught:
                await resonate.rpc(new_id(), f"ts_{name}", *args).target("ts")
            return caught.value

        error = await fail("fail", "boom")
        assert ("TypeError", "boom") == (error.name, error.message)
        assert "worker.mjs" in (error.traceback or "")
        several = await fail("fail_twice", "a", "b")
        assert ("AggregateError", "both") == (several.name, several.message)
        assert isinstance(several.data, dict)
        assert ["a", "b"] == [member["message"] for member in several.data["errors"]]
        assert {"code": 7} == (await fail("throw", {"code": 7})).data


async def test_our_workflow_calls_typescript(make: Callable[[], Resonate]) -> None:
    """`ctx.rpc` does so as well."""
    async with make() as resonate:
        outcomes = await resonate.run(new_id(), flow, "ts")

    assert {**RESULTS, "fail": "ApplicationError: TypeError: boom"} == outcomes


async def test_typescript_calls_us(peer: Peer, make: Callable[[], Resonate]) -> None:
    """The client of TypeScript gets what functions here give, and throws what they raise; None is null."""

    async def fail_twice(one: str, other: str) -> None:
        text = "both"
        raise ExceptionGroup(text, [LookupError(one), TypeError(other)])

    resonate = make()
    resonate.register(fail_twice, name="py_fail_twice")
    calls = [{"func": f"py_{name}", "args": args} for name, args in ARGUMENTS.items()]
    async with resonate:
        *results, failure, failures = await peer.call(*calls, {"func": "py_fail_twice", "args": ["a", "b"]})

    assert [{"value": value} for value in RESULTS.values()] == results
    assert ("ValueError", "boom") == (failure["error"]["name"], failure["error"]["message"])
    assert "Traceback" in failure["error"]["stack"]
    assert ["LookupError: a", "TypeError: b"] == [
        f"{member['name']}: {member['message']}" for member in failures["error"]["errors"]
    ]


async def test_a_workflow_of_typescript_calls_us(make: Callable[[], Resonate]) -> None:
    """A workflow over there runs local steps, sleeps, and gets results and errors of functions here."""
    async with make() as resonate:
        outcomes = await resonate.rpc(new_id(), "ts_flow", "py").target("ts")

    error = outcomes.pop("fail")
    assert {**RESULTS, "local": 2} == outcomes
    assert ("ValueError", "boom") == (error["name"], error["message"])
    assert "Traceback" in error["stack"]


async def test_each_calls_the_other_in_turn(peer: Peer, make: Callable[[], Resonate]) -> None:
    """A client of theirs calls a workflow of ours, which calls theirs."""
    async with make():
        (outcome,) = await peer.call({"func": "flow", "args": ["ts"]})

    assert {**RESULTS, "fail": "ApplicationError: TypeError: boom"} == outcome["value"]
