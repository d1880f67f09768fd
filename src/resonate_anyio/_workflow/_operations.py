"""Operations: the kinds of durable call, and what of each is compared on a replay.

A replay has to ask for the same under the same id: same operation, same function, same version and, for a call that
runs elsewhere, same arguments (docs/semantics.md 2.7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from attrs import Factory, field, frozen

from .._errors import DecodeError
from .._history import DETACHED_TAG
from .._protocol import Promise

if TYPE_CHECKING:
    from .._codec import Codec


@frozen(kw_only=True)
class Operation:
    """One kind of durable call.

    Attributes:
        name: as users write it, and as errors name it.
        naming: which rule gives its promise an id (see `Naming`).
        scope: `local` if its promise is in the branch of the execution, and comes with its lease; else `global`.
        create: which request makes its promise (see `Journal`).
        tags: tags of its promise beside those of the scope.
        has_descendants: whether another execution runs below it, which has to end with it.
        awaited: whether the function that makes it does not end before it has ended.
    """

    name: str
    naming: Literal["local", "remote", "detached"]
    scope: Literal["local", "global"]
    create: Literal["local", "remote", "timer"]
    tags: Mapping[str, str] = Factory(dict)
    has_descendants: bool = False
    awaited: bool = True


RUN = Operation(name="ctx.run", naming="local", scope="local", create="local")
RPC = Operation(name="ctx.rpc", naming="remote", scope="global", create="remote", has_descendants=True)
DETACHED = Operation(
    name="ctx.detached", naming="detached", scope="global", create="remote", tags={DETACHED_TAG: "true"}, awaited=False
)
SLEEP = Operation(name="ctx.sleep", naming="remote", scope="global", create="timer", tags={"resonate:timer": "true"})
PROMISE = Operation(
    name="ctx.promise", naming="remote", scope="global", create="timer", tags={"resonate:external": "true"}
)
CHOICE = Operation(
    name="choice", naming="local", scope="local", create="local", tags={"resonate:timer": "true"}, awaited=False
)
"""A choice of the code, such as which call came first. Its name is in what is recorded with it."""


@frozen
class CallIdentity:
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


def identity_of(record: Promise, codec: Codec) -> CallIdentity:
    """What `record` was made for."""
    if record.timer:
        return CallIdentity(str(content_of(record, codec).get("fact", "ctx.sleep")))
    if record.tags.get("resonate:external") == "true":
        return CallIdentity("ctx.promise")
    content = content_of(record, codec)
    func, version = content.get("func"), content.get("version")
    if record.tags.get("resonate:scope") == "local":
        return CallIdentity("ctx.run", func, version)
    operation = "ctx.detached" if DETACHED_TAG in record.tags else "ctx.rpc"
    return CallIdentity(operation, func, version, (content.get("args"), content.get("kwargs") or {}))


def content_of(record: Promise, codec: Codec) -> dict[str, Any]:
    """What was recorded with a call; nothing, if somebody else has recorded something else under its id."""
    try:
        param = codec.decode(record.param)
    except DecodeError:
        return {}
    return param if isinstance(param, dict) else {}
