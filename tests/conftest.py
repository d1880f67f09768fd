"""What every test gets: both backends, time that it need not wait for, and a check that it leaves nothing behind.

An async test runs once on asyncio and once on trio, each time on a fresh loop with virtual time. A test marked `wall`
runs by the wall clock, for what virtual time does not see, and has a limit of its own.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import os
import random
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from trio._core import _run as trio_run

from resonate_anyio.abc import Clock
from resonate_anyio.networks import system_clock
from resonate_anyio.testing import VirtualClock, virtual_backend

from . import chosen, loops

WALL_LIMIT = 120.0
"""Seconds that a test marked `wall` may take if it does not say otherwise: many times what the slowest needs."""

_HERE = Path(__file__).parent

CAMPAIGNS = (
    _HERE / "crash",
    _HERE / "engine" / "test_composition.py",
    _HERE / "engine" / "test_positions.py",
    _HERE / "faults" / "test_each_fault.py",
    _HERE / "faults" / "test_outages.py",
    _HERE / "faults" / "test_random_faults.py",
    _HERE / "faults" / "test_two_workers.py",
    _HERE / "properties",
    _HERE / "server" / "test_transcripts.py",
)
"""Folders and files of the tests that try a great many cases, and cover no line which others do not."""

SAMPLED = {
    _HERE / "client" / "test_processes.py": (1, 3),
    _HERE / "crash" / "test_harness.py": (1, 8),
    _HERE / "crash" / "test_interrupts.py": (1, 8),
    _HERE / "engine" / "test_composition.py": (1, 4),
    _HERE / "engine" / "test_positions.py": (1, 4),
    _HERE / "faults" / "test_each_fault.py": (3, 8),
    _HERE / "faults" / "test_outages.py": (1, 4),
    _HERE / "faults" / "test_store_outages.py": (1, 4),
    _HERE / "interop" / "test_typescript.py": (1, 3),
    _HERE / "properties" / "test_faults_are_found.py": (3, 8),
    _HERE / "server" / "test_hostile.py": (2, 4),
    _HERE / "server" / "test_transcripts.py": (1, 4),
    _HERE / "wall" / "test_workflows.py": (2, 2),
}
"""Files of which a run has one test in so many: a usual run, and one over another network, by other rules or on another
loop. `--campaigns all` has every test."""

SLOW = (
    *CAMPAIGNS,
    _HERE / "examples",
    _HERE / "faults",
    _HERE / "typing",
    _HERE / "wall",
    _HERE / "client" / "test_processes.py",
    _HERE / "golden",
    _HERE / "interop" / "test_typescript.py",
    _HERE / "server" / "test_browser.py",
    _HERE / "server" / "test_cli.py",
    _HERE / "server" / "test_hostile.py",
    _HERE / "server" / "test_serve.py",
    _HERE / "stores" / "test_owner.py",
)
"""Folders and files of the tests that start processes, or that try a great many cases."""

ALIKE = (_HERE / "house", _HERE / "typing")
"""Folders of the tests of the source itself, which is the same over each network."""

SPARE_THREADS = ("AnyIO worker thread", "Trio thread")
"""Names of threads that the backends keep for the next call."""

settings.register_profile(
    "resonate-anyio",
    settings.get_profile(settings.get_current_profile_name()),
    # Examples of one test share its fixtures here. Those that keep state are made inside the test.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    # A machine that is busy with something else must not fail a test.
    deadline=None,
)
settings.load_profile("resonate-anyio")

# Hypothesis draws constants that it finds in the source of whatever has been imported by then. The examples of a test
# must not depend on which others have run before it.
providers._get_local_constants = lambda: providers._local_constants


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line choose the network that tests run over."""
    chosen.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Take what it has chosen."""
    chosen.choose(config)


def pytest_report_header() -> str:
    """Tell what samples are chosen by."""
    return f"seed: {chosen.CHOSEN.seed} (--seed)"


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at ten thousand collected tests again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Do not let the processes of pytest-xdist measure themselves, besides what pytest-cov measures in them.

    The setting `patch = ["subprocess"]` is for the processes that tests start. pytest-cov prepares the environment for
    those again in each process.
    """
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """End the measurement that pytest-cov 7.1 begins in a process of pytest-xdist as if that were the only process.

    It begins another one for the session. The first is never saved, doubles the time, and goes on in tests that are
    marked `no_cover`.
    """
    plugin: Any = session.config.pluginmanager.getplugin("_cov")
    if hasattr(session.config, "workerinput") and plugin is not None and plugin.cov_controller is not None:
        plugin.cov_controller.cov.stop()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give the processes of pytest-xdist the seed: their samples have to be the same."""
    node.workerinput["seed"] = chosen.CHOSEN.seed


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a test choose its cases by its own name, and draw the same random numbers each time that it has the seed."""
    chosen.CHOSEN.test = item.nodeid
    drawn = f"{chosen.CHOSEN.seed} {item.nodeid}"
    # The jitter of pauses, and the order in which trio runs tasks.
    random.seed(drawn)
    trio_run._r.seed(drawn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say how a test that has failed is run again with the same cases."""
    report = yield
    if report.failed:
        report.sections.append(("to run it again", chosen.again(item.nodeid)))
    return report


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The backend of an async test and of its async fixtures, in virtual time unless the test is marked `wall`."""
    name: str = request.param
    if name == "asyncio" and chosen.CHOSEN.asyncio != "plain":
        return name, loops.options(chosen.CHOSEN.asyncio, virtual=not _by_the_wall(request))
    return (name, {}) if _by_the_wall(request) else virtual_backend(name)


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> Clock:
    """The wall clock that goes with `anyio_backend`: it follows virtual time, or is the machine's own."""
    return system_clock if _by_the_wall(request) else VirtualClock()


@pytest.fixture(params=["plain", "httpx"])
def each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test over the transport of this package for plain connections, and over the one of httpx."""
    if request.param == "httpx":
        monkeypatch.setattr("resonate_anyio.networks._http.is_plain", lambda *_: False)


@pytest.fixture(autouse=True)
def no_threads_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test if a thread that it started outlives it."""
    del request
    before = set(threading.enumerate())
    yield
    started = [thread for thread in set(threading.enumerate()) - before if not thread.name.startswith(SPARE_THREADS)]
    for thread in started:
        # whoever has just been told to stop may take a moment
        thread.join(timeout=1)
    left = [thread.name for thread in started if thread.is_alive()]
    assert [] == left


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail an async test that leaves a task without an owner."""
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = leaving_no_tasks(pyfuncitem.obj)
    return (yield)


def leaving_no_tasks(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return `test` with a check after it."""

    @wraps(test)
    async def checked(*args: object, **kwargs: object) -> None:
        await test(*args, **kwargs)
        assert set() == _tasks_without_owner()

    return checked


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Hold tests to their form: each states its claim in a docstring, and those by the wall clock have a limit."""
    stacks_at = float(config.getini("faulthandler_timeout")) or math.inf
    tests = [item for item in items if isinstance(item, pytest.Function)]
    if silent := [test.nodeid for test in tests if not inspect.getdoc(test.function)]:
        msg = "a test states its claim in a docstring of one sentence: " + ", ".join(silent)
        raise pytest.UsageError(msg)
    for test in tests:
        if _is_in(test, CAMPAIGNS):
            # They run the same lines thousands of times, and to measure them would double what that takes.
            test.add_marker(pytest.mark.no_cover)
        if test.path in SAMPLED:
            one_in, elsewhere = SAMPLED[test.path]
            test.add_marker(pytest.mark.sampled(one_in=one_in, elsewhere=elsewhere))
        if _is_in(test, SLOW):
            test.add_marker(pytest.mark.slow)
        if _is_in(test, ALIKE):
            test.add_marker(pytest.mark.embedded("the source is the same over each network"))
        chosen.skip_if_not_meant(test)
        marker = test.get_closest_marker("wall")
        if marker is not None and test.get_closest_marker("timeout") is None:
            limit = marker.kwargs.get("limit", WALL_LIMIT)
            if limit >= stacks_at:
                msg = f"{test.nodeid} has a limit of {limit} s, and faulthandler_timeout reports it before that"
                raise pytest.UsageError(msg)
            test.add_marker(pytest.mark.timeout(limit))
    chosen.select(config, items)


def _is_in(test: pytest.Item, folders: Sequence[Path]) -> bool:
    return any(test.path.is_relative_to(folder) for folder in folders)


def _by_the_wall(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("wall") is not None


def _tasks_without_owner() -> set[asyncio.Task[Any]]:
    try:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
    except RuntimeError:
        # no asyncio loop here; in trio no task is without a parent
        return set()
    return {task for task in tasks if not _is_anyios(task)}


def _is_anyios(task: asyncio.Task[Any]) -> bool:
    # Tasks of a task group belong to whoever opened it (a fixture, say), and those of the test runner to itself.
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and frame.f_globals["__name__"].startswith("anyio.")
