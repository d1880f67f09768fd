"""What options and names are refused, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resonate_anyio import InvalidArgument, Resonate


async def double(number: int) -> int:
    """Double the number."""
    return 2 * number


CALLS: dict[str, Callable[[Resonate], Any]] = {
    "run": lambda resonate: resonate.run("a", double, 1),
    "rpc": lambda resonate: resonate.rpc("a", double, 1),
    "schedule": lambda resonate: resonate.schedule("a", "0 0 * * *", double, 1),
}


@pytest.mark.parametrize("tag", ["resonate:timer", "resonate:scope", "resonate-anyio:detached"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_tags_of_the_protocol_are_refused(resonate: Resonate, call: Callable[[Resonate], Any], tag: str) -> None:
    """Tags that say what a promise is are not the caller's to give."""
    resonate.register(double)
    async with resonate:
        with pytest.raises(InvalidArgument, match=f"choose another name than '{tag}'"):
            call(resonate).tags({"mine": "x", tag: "true"})


async def test_the_delay_of_the_protocol_may_be_asked_for(resonate: Resonate) -> None:
    """All but one: when a call may start is for the caller to say."""
    resonate.register(double)
    async with resonate:
        assert 2 == await resonate.rpc("a", double, 1).tags({"resonate:delay": "0"})
        assert "0" == (await resonate.promises.get("a")).tags["resonate:delay"]


@pytest.mark.parametrize(
    "call",
    [lambda resonate: resonate.rpc("a", ""), lambda resonate: resonate.schedule("a", "0 0 * * *", "")],
    ids=["rpc", "schedule"],
)
def test_an_empty_name_is_refused(resonate: Resonate, call: Callable[[Resonate], Any]) -> None:
    """A function is called by a name, which is not empty."""
    with pytest.raises(InvalidArgument, match="the name of a function must not be empty"):
        call(resonate)
