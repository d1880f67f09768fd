"""Ids on servers that join a root and what is below it by a colon."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resonate_anyio import Context, DurableCancelledError, InvalidArgument, Resonate
from resonate_anyio._protocol import ANNOUNCED, EMBEDDED, SPECIFIED, PromiseCreate, Rules
from resonate_anyio.abc import Clock
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore

from ..inside import worker_of
from .harness import Look, Wire, World


@pytest.fixture(params=[ANNOUNCED, SPECIFIED], ids=["announced", "specified"])
def rules(request: pytest.FixtureRequest) -> Rules:
    """The rules with colons. By the second a timer with a target is refused."""
    found: Rules = request.param
    return found


@pytest.fixture
def network(clock: Clock, rules: Rules) -> LocalNetwork:
    """An engine with these rules."""
    return LocalNetwork(MemoryStore(), clock=clock, rules=rules)


async def leaf(name: str) -> str:
    return name


async def inner(ctx: Context) -> str:
    return await ctx.run(leaf, "inner")


async def flow(ctx: Context) -> list[Any]:
    results = [await ctx.run(leaf, "a"), await ctx.run(inner), await ctx.rpc(inner)]
    await ctx.sleep(5)
    await ctx.detached(leaf, "detached")
    return results


async def test_ids(resonate: Resonate, rules: Rules) -> None:
    """The first separator of an id is a colon, all others are dots; sleeps have a target unless that is refused."""
    for function in (leaf, inner, flow):
        resonate.register(function)
    async with resonate:
        assert ["a", "inner", "inner"] == await resonate.run("w", flow)
        await anyio.sleep(1)
        look = Look(resonate)
        ids = list(await look.states())
        assert {"w", "w:leaf-1", "w:inner-1", "w:inner-1.leaf-1", "w:inner-2", "w:inner-2.leaf-1", "w:sleep-1"} <= {
            *ids
        }
        assert [] == [id for id in ids if id.count(":") > 1 or "." in id.partition(":")[0]]
        assert (rules is SPECIFIED) == ((await look.promise("w:sleep-1")).target is None)


async def test_replay(clock: Clock, rules: Rules) -> None:
    """A process that finds such a history goes on from it: nothing is made a second time."""
    world = World(MemoryStore(), clock, rules)
    async with world.process(leaf, inner, flow) as first:
        await first.resonate.run("w", flow).spawn()
        await anyio.sleep(2)
        first.kill()
    async with world.process(leaf, inner, flow) as second:
        assert ["a", "inner", "inner"] == await (await second.resonate.get("w"))
        assert [] == [id for id in second.wire.created() if id.startswith(("w:leaf", "w:inner", "w:sleep"))]


async def test_cancel_goes_down(resonate: Resonate) -> None:
    """Cancelling an execution ends what it has called elsewhere."""

    async def waiting(ctx: Context) -> None:
        await ctx.rpc("nobody").target("nowhere")

    resonate.register(waiting)
    async with resonate:
        handle = await resonate.run("w", waiting).spawn()
        await anyio.sleep(1)
        await resonate.cancel("w")
        with pytest.raises(DurableCancelledError):
            await handle
        assert {"w": "rejected_canceled", "w:nobody-1": "rejected_canceled"} == await Look(resonate).states()


async def test_prefix(network: LocalNetwork) -> None:
    """A prefix with a colon in it is refused where it would be taken for a root."""
    with pytest.raises(InvalidArgument, match="one root of all ids"):
        async with Resonate(network=network, prefix="prod:"):
            pass
    async with Resonate(network=network, prefix="prod-"):
        pass


async def test_peers_with_the_other_grammar(clock: Clock) -> None:
    """Where a server lets each SDK have its own separator, what another SDK has made below a root is ended with it."""
    wire = Wire(LocalNetwork(MemoryStore(), clock=clock, rules=EMBEDDED), lapsing=True)
    async with Resonate(network=wire) as resonate:
        look = Look(resonate)
        later = worker_of(resonate).connection.now() + 10**9
        for id in ("w", "w:1", "w:1.2", "w.3", "wx"):
            await look.request(PromiseCreate(id=id, timeout_at=later, tags={"resonate:target": "poll://any@nowhere"}))
        await resonate.cancel("w")
        states = await look.states()
        assert {"wx"} == {id for id, state in states.items() if state == "pending"}
