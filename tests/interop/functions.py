"""What is called: the same few functions in every SDK, their names beginning with who offers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from resonate_anyio import Context, Resonate

GO: Final = "go"
BARE: Final = ("rs", GO)
"""Whose functions with one parameter take their argument by itself."""

ARGUMENTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "double": (21,),
    "sum": ([1, 2, 3],),
    "pair": ("a", 1),
    "nothing": (),
    "fail": ("boom",),
}
RESULTS: Final[Mapping[str, Any]] = {"double": 42, "sum": 6, "pair": ["a", 1], "nothing": None}


def double(n: int) -> int:
    return n * 2


def add_up(numbers: list[int]) -> int:
    return sum(numbers)


def pair(text: str, n: int) -> tuple[str, int]:
    return text, n


def pair_of_struct(struct: dict[str, Any]) -> dict[str, Any]:
    """In Go a function has one parameter, so what belongs together is a struct."""
    return struct


def nothing(given: None = None) -> None:
    return given


def fail(message: str) -> None:
    raise ValueError(message)


def arguments(peer: str, name: str) -> tuple[Any, ...]:
    """What `peer`'s function of this name is called with."""
    return ({"a": "a", "n": 1},) if (peer, name) == (GO, "pair") else ARGUMENTS[name]


def result(peer: str, name: str) -> Any:
    """What `peer`'s function of this name gives."""
    return {"a": "a", "n": 1} if (peer, name) == (GO, "pair") else RESULTS[name]


def offer(resonate: Resonate, prefix: str) -> None:
    """Register all of them, to be called as the SDK whose prefix this is calls them."""
    functions: dict[str, Callable[..., Any]] = {
        "double": double,
        "sum": add_up,
        "pair": pair_of_struct if prefix == GO else pair,
        "nothing": nothing,
        "fail": fail,
    }
    for name, function in functions.items():
        # A list that comes by itself looks like a list of arguments.
        single = prefix in BARE and name == "sum"
        resonate.register(function, name=f"{prefix}_{name}", single_arg=single)


async def flow(ctx: Context, peer: str) -> dict[str, Any]:
    """Call all functions of a peer, a group of workers of that name, and tell what they gave or failed with."""
    outcomes: dict[str, Any] = {}
    for name in ARGUMENTS:
        call = ctx.rpc(f"{peer}_{name}", *arguments(peer, name)).target(peer)
        try:
            outcomes[name] = await (call.bare_args() if peer in BARE else call)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            outcomes[name] = f"{type(error).__name__}: {error}"
    return outcomes
