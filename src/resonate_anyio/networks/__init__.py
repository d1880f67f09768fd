"""Networks: how requests reach an engine, and how its messages come back."""

from __future__ import annotations

import typing

from .._embedded._clock import system_clock as system_clock
from ._local import LocalNetwork as LocalNetwork

if typing.TYPE_CHECKING:
    from ._http import HttpNetwork as HttpNetwork

__all__ = ("HttpNetwork", "LocalNetwork", "system_clock")


def __getattr__(name: str) -> object:
    # The HTTP library takes as long to import as all the rest: those who have no server need not wait for it.
    if name == "HttpNetwork":
        from ._http import HttpNetwork  # noqa: PLC0415

        return HttpNetwork
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
