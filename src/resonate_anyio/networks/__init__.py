"""Networks: how requests reach a server or the embedded engine, and how messages come back."""

from __future__ import annotations

import typing

from .._embedded._clock import system_clock as system_clock
from ._local import LocalNetwork as LocalNetwork

if typing.TYPE_CHECKING:
    from ._http import HttpNetwork as HttpNetwork

__all__ = ("HttpNetwork", "LocalNetwork", "system_clock")


def __getattr__(name: str) -> object:
    # The HTTP library takes as long to import as the rest of the package: only programs with a server wait for it.
    if name == "HttpNetwork":
        from ._http import HttpNetwork  # noqa: PLC0415

        return HttpNetwork
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
