"""Networks: how requests reach a server or the embedded engine, and how messages come back."""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from .._embedded._clock import system_clock as system_clock
    from ._http import HttpNetwork as HttpNetwork
    from ._local import LocalNetwork as LocalNetwork

__all__ = ("HttpNetwork", "LocalNetwork", "system_clock")

# The HTTP library takes as long to import as the rest of the package, and the embedded engine a fifth of that. Only
# programs that use one wait for it.
_LATER: typing.Final = {
    "HttpNetwork": "._http",
    "LocalNetwork": "._local",
    "system_clock": ".._embedded._clock",
}


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name], __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
