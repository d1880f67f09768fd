"""`Builder`: a call that has been described but not made yet.

Every call of the API (`ctx.run(...)`, `resonate.rpc(...)`, ...) gives a builder; option methods return it, `await` or
`spawn()` makes the call, once. A builder that is dropped unused warns like a forgotten coroutine does.
"""

from __future__ import annotations

import sys
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from .._errors import BuilderUsed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Self

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
V = TypeVar("V")

_PACKAGE: Final = str(Path(__file__).parent.parent)


class Builder(ABC, Generic[T_co]):
    """A call that is made when it is awaited; its result has the type `T_co`."""

    __slots__ = ("__weakref__", "_label", "_made_at", "_type", "_used")

    def __init__(self, label: str, type_: Any) -> None:
        self._used = False
        self._label = label
        self._type = type_
        self._made_at = caller()

    def __await__(self) -> Generator[Any, Any, T_co]:
        self._use()
        return self._run().__await__()

    @abstractmethod
    def _run(self) -> Coroutine[Any, Any, T_co]:
        """Make the call and wait for its result."""

    def _use(self) -> None:
        if self._used:
            msg = f"{self._label} was started already; a call is awaited or spawned once: build another one"
            raise BuilderUsed(msg)
        self._used = True

    def _typed(self, type_: Any) -> Any:
        """What `returns` does; each kind of call declares it with its own type."""
        self._configure()._type = type_
        return self

    def _configure(self) -> Self:
        if self._used:
            msg = f"{self._label} was started already; its options are set before the await"
            raise BuilderUsed(msg)
        return self

    def _checked(self, convert: Callable[[V], U], value: V) -> U:
        """Convert the value of an option. A call whose option was refused is not expected to be made."""
        self._configure()
        try:
            return convert(value)
        except Exception:
            self._used = True
            raise

    def __repr__(self) -> str:
        return f"<{self._label}{'' if self._used else ', not awaited'}>"

    def excuse(self) -> None:
        """Do not expect it to be made any more."""
        self._used = True

    def _excused(self) -> bool:
        """Whether the program cannot be blamed for not making the call."""
        return False

    def __del__(self) -> None:
        if getattr(self, "_used", True) or self._excused():
            return
        filename, line = self._made_at
        message = f"{self._label} was never awaited, so the call was not made; write: await {self._label}"
        warnings.warn_explicit(message, RuntimeWarning, filename, line, source=self)


def caller() -> tuple[str, int]:
    """File and line of the nearest frame outside of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
