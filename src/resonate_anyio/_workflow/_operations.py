"""Operations: the kinds of durable call, and the parts of each that are compared on a replay.

A replay has to make the same call under the same id: the same operation, function and version and, for a call that runs
elsewhere, the same arguments (docs/semantics.md 2.7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from attrs import Factory, field, frozen

from .._errors import DecodeError
from .._history import DETACHED_TAG
from .._protocol import Promise, Value
from .._values import ValueObject

if TYPE_CHECKING:
    from .._codec import Codec


@frozen(kw_only=True, eq=False, repr=False)
class Operation(ValueObject):
    """One kind of durable call.

    Attributes:
        name: the name that users write and that errors show.
        naming: the rule that gives its promise an id (see `Naming`).
        scope: `local` if its promise is in the branch of the execution, and is read with its lease; else `global`.
        create: the request that makes its promise (see `Journal`).
        tags: the tags of its promise besides those of the scope.
        has_descendants: whether another execution runs below it, which has to end with it.
        awaited: whether the calling function waits for its end before it ends.
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
"""A recorded choice, such as which call ended first. Its own name is in its param."""


@frozen(eq=False, repr=False)
class CallIdentity(ValueObject):
    """The call that a promise was made for: as recorded, or as a replay asks for it.

    `arguments` are compared for remote calls only. Those of a local call are passed as they are; the digest that is
    recorded with it is not compared.
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
    """Return the beginning of a text that may be long."""
    return text if len(text) <= 200 else f"{text[:200]}..."


def identity_of(record: Promise, codec: Codec) -> CallIdentity:
    """Return the call that `record` was made for."""
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


def difference(record: Promise, param: Value, tags: Mapping[str, str], codec: Codec) -> tuple[str, str] | None:
    """Return the recorded call and the one that is asked for, in words, or None if they are the same call."""
    asked = identity_of(Promise(id=record.id, timeout_at=0, created_at=0, param=param, tags=tags), codec)
    recorded = identity_of(record, codec)
    return None if recorded == asked else (str(recorded), str(asked))


def content_of(record: Promise, codec: Codec) -> dict[str, Any]:
    """Return the param of a call; an empty one, if another program has recorded something else under its id."""
    try:
        param = codec.decode(record.param)
    except DecodeError:
        return {}
    return param if isinstance(param, dict) else {}
