"""A setting is declared in one place, and whatever else names it agrees with that."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import Attribute

from resonate_anyio import Resonate
from resonate_anyio._client._settings import LocalSettings, resolve
from resonate_anyio._worker._settings import Settings, about, all_settings, shown_default

ROOT = Path(__file__).parents[2]
HEADER = "| argument | environment | default | |"
PLACES = {"url", "store", "network", "token"}
"""The settings that say where promises are kept, which `Resonate.local` takes as a path."""


def names() -> set[str]:
    """The settings that are declared."""
    return {setting.name for setting in all_settings()}


def rows() -> dict[str, str]:
    """The rows of the table of settings in the documentation, by argument."""
    pages = [path for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if HEADER in path.read_text("utf-8")]
    assert 1 == len(pages)
    table = pages[0].read_text("utf-8").partition(HEADER)[2].partition("\n\n")[0]
    return {line.split("`")[1]: line for line in table.splitlines()[2:]}


def row(setting: Attribute[Any]) -> str:
    """The row that documents a setting."""
    cells = (f"`{setting.name}`", about(setting).environment, shown_default(setting), about(setting).text)
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def types_of(function: Any) -> dict[str, str]:
    """The annotations of the parameters of a function, as they are written."""
    return {name: str(parameter.annotation) for name, parameter in inspect.signature(function).parameters.items()}


class Watched(Mapping[str, str]):
    """An environment that notes which variables are asked for."""

    def __init__(self, **variables: str) -> None:
        self.variables = variables
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self.variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


def test_resonate_takes_every_setting() -> None:
    """The signature of `Resonate` has the name and the type of each setting, and no other."""
    taken = types_of(Resonate.__init__)
    del taken["self"]

    assert taken == {name: type_ for name, type_ in types_of(Settings).items() if name != "self"}


@pytest.mark.parametrize("setting", all_settings(), ids=lambda setting: setting.name)
def test_defaults_agree(setting: Attribute[Any]) -> None:
    """The default in the signature of `Resonate` is that of the setting."""
    assert setting.default == inspect.signature(Resonate).parameters[setting.name].default


def test_local_takes_every_setting_but_the_place() -> None:
    """`Resonate.local` takes each setting that does not say where promises are kept, with the same type."""
    types = {name: annotation.__forward_arg__ for name, annotation in LocalSettings.__annotations__.items()}

    assert types == {name: type_ for name, type_ in types_of(Settings).items() if name not in PLACES}


@pytest.mark.parametrize("setting", all_settings(), ids=lambda setting: setting.name)
def test_the_table_documents_every_setting(setting: Attribute[Any]) -> None:
    """The row of a setting in the documentation is made of what its field says."""
    assert row(setting) == rows().get(setting.name)


def test_the_table_documents_nothing_else() -> None:
    """A setting that does not exist is not documented, and the order is that of the fields."""
    assert [setting.name for setting in all_settings()] == list(rows())


@pytest.mark.parametrize("setting", all_settings(), ids=lambda setting: setting.name)
def test_help_documents_every_setting(setting: Attribute[Any]) -> None:
    """The docstring of `Resonate` has what the field of a setting says."""
    text = " ".join((Resonate.__init__.__doc__ or "").split())

    assert f"{setting.name}: {about(setting).text}" in text


def test_the_documented_variables_are_those_that_are_read() -> None:
    """The environment variables that settings name are those that are asked for."""
    environments = [Watched(), Watched(RESONATE_URL="http://a"), Watched(RESONATE_HOST="a")]
    for environment in environments:
        resolve({}, environment)
    documented = {
        name for setting in all_settings() for name in re.findall(r"RESONATE_\w+", about(setting).environment)
    }

    assert documented == set().union(*(environment.asked for environment in environments))
