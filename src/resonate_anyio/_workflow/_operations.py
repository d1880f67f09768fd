"""What a promise was made for: as it is recorded, and as the code asks for it.

A replay has to ask for the same under the same id: same operation, same function, same version and, for a call that
runs elsewhere, same arguments (docs/semantics.md 2.7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from .._errors import DecodeError
from .._history import DETACHED_TAG
from .._protocol import Promise

if TYPE_CHECKING:
    from .._codec import Codec


@frozen
class Operation:
    """What a promise was made for, as recorded and as asked for by a replay.

    `arguments` are compared for remote calls only: those of a local one are passed as they are, and the digest that
    is recorded with it decides nothing.
    """

    operation: str
    func: str | None = None
    version: int | None = None
    arguments: Any = field(default=None)

    def __str__(self) -> str:
        if self.func is None:
            return f"{self.operation}()"
        arguments = "" if self.arguments is None else f" with {_short(self.arguments)}"
        return f"{self.operation}({self.func}, version {self.version}){arguments}"


def _short(arguments: Any) -> str:
    positional, keywords = arguments
    if not isinstance(positional, list):
        return f"bare ({cut(repr(positional))})"
    return f"({cut(', '.join([*map(repr, positional), *(f'{k}={v!r}' for k, v in keywords.items())]))})"


def cut(text: str) -> str:
    """The beginning of a text that may be long."""
    return text if len(text) <= 200 else f"{text[:200]}..."


def operation_of(record: Promise, codec: Codec) -> Operation:
    """What `record` was made for."""
    if record.timer:
        return Operation(str(content_of(record, codec).get("fact", "ctx.sleep")))
    if record.tags.get("resonate:external") == "true":
        return Operation("ctx.promise")
    content = content_of(record, codec)
    func, version = content.get("func"), content.get("version")
    if record.tags.get("resonate:scope") == "local":
        return Operation("ctx.run", func, version)
    operation = "ctx.detached" if DETACHED_TAG in record.tags else "ctx.rpc"
    return Operation(operation, func, version, (content.get("args"), content.get("kwargs") or {}))


def content_of(record: Promise, codec: Codec) -> dict[str, Any]:
    """What was recorded with a call; nothing, if somebody else has recorded something else under its id."""
    try:
        param = codec.decode(record.param)
    except DecodeError:
        return {}
    return param if isinstance(param, dict) else {}
