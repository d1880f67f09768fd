"""The tables of the documentation name all that exist: settings, options, errors, policies."""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Callable
from typing import Any, Final

import pytest

import resonate_anyio
from resonate_anyio import Context, Info, Resonate, ResonateError, RetryPolicy, testing
from resonate_anyio.cli import main
from resonate_anyio.networks import HttpNetwork

from .test_pages import ROOT

_NAME: Final = re.compile(r"`(?:--|ctx\.)?([A-Za-z_][\w-]*)")


def named_in(page: str, heading: str) -> set[str]:
    """What the first column of the tables below a heading names: the first word of each piece of code in it."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, heading
    cells = [line.split("|")[1] for line in section[1].splitlines() if line.startswith("|")]
    return {name for cell in cells for name in _NAME.findall(cell)}


def parameters(func: Callable[..., Any]) -> set[str]:
    """The names of the parameters of a method."""
    return {*inspect.signature(func).parameters} - {"self"}


def exported(base: type) -> set[str]:
    """The public classes of a kind."""
    public = {name: getattr(resonate_anyio, name) for name in resonate_anyio.__all__}
    return {name for name, each in public.items() if isinstance(each, type) and issubclass(each, base)}


def test_settings() -> None:
    """Every argument of `Resonate` is in the table of settings, and nothing else is."""
    assert parameters(Resonate.__init__) == named_in("reference.md", "Settings")


def test_options_of_the_http_network() -> None:
    """Every option of `HttpNetwork` is in its table, and nothing else is."""
    assert parameters(HttpNetwork.__init__) == {"url"} | named_in("reference.md", "Options of the HTTP network")


def test_client() -> None:
    """Every public method and attribute of a client is in the table of the client."""
    public = {name for name in dir(Resonate()) if not name.startswith("_")} - {"local"}
    assert set() == public - named_in("reference.md", "The client")


def test_context() -> None:
    """Every call that a workflow can make is in the table of calls, and nothing else is."""
    calls = {name for name, _ in inspect.getmembers(Context, inspect.isfunction) if not name.startswith("_")}
    assert calls == named_in("guide.md", "Calls")


def test_info() -> None:
    """Every attribute and method of `Info` is in its table."""
    public = {name for name in dir(Info) if not name.startswith("_")}
    assert public == named_in("reference.md", "Information about the running function")


def test_errors() -> None:
    """Every error of this package is in the table of errors, and nothing else is."""
    named = {name for name in named_in("reference.md", "Errors") if not hasattr(builtins, name)}
    assert exported(ResonateError) == {"ResonateError"} | named


def test_retry_policies() -> None:
    """Every retry policy is in the table of policies."""
    assert exported(RetryPolicy) - {"RetryPolicy"} == named_in("reference.md", "Retry policies")


def test_tools_for_tests() -> None:
    """Every public name of `resonate_anyio.testing` is in its table."""
    assert {*testing.__all__} == named_in("reference.md", "Tools for tests")


def test_options_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option of `resonate-anyio dev` is in its table, and nothing else is."""
    with pytest.raises(SystemExit):
        main(["dev", "--help"])

    options = {name.removeprefix("--") for name in re.findall(r"--[a-z-]+", capsys.readouterr().out)}
    assert options - {"help"} == named_in("operations.md", "A server of its own") - {"power", "trio"}
