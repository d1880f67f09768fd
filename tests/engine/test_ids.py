"""How promises are named, and what is recorded with each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from resonate_anyio import (
    Context,
    DuplicateId,
    InvalidArgument,
    InvalidId,
    Resonate,
    durable,
)
from resonate_anyio.networks import LocalNetwork

from .harness import Look, Wire, World


async def double(x: int) -> int:
    return x * 2


async def triple(x: int) -> int:
    return x * 3


async def ids_of(resonate: Resonate, func: Callable[..., Awaitable[Any]], id: str = "w") -> list[str]:
    """Run `func` and return the ids below it."""
    resonate.register(func)
    async with resonate:
        await resonate.run(id, func)
        return [other for other in await Look(resonate).states() if other != id]


async def test_counted_by_name(resonate: Resonate) -> None:
    """A call is named after its function and counts the calls of that name in its frame."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1)
        await ctx.run(triple, 1)
        await ctx.run(double, 2)

    assert ["w.double-1", "w.double-2", "w.triple-1"] == await ids_of(resonate, workflow)


async def test_every_kind_of_call(resonate: Resonate) -> None:
    """Sleeps, promises, remote calls and nested calls are named in the same manner."""

    async def child(ctx: Context) -> None:
        await ctx.run(double, 1)

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(1)
        await ctx.run(child)
        await ctx.rpc("double", 2)
        promise = await ctx.promise().timeout(1).spawn()
        with pytest.raises(TimeoutError):
            await promise

    resonate.register(double)
    ids = await ids_of(resonate, workflow)
    assert ["w.child-1", "w.child-1.double-1", "w.double-1", "w.promise-1", "w.sleep-1"] == ids


async def test_local_and_remote_calls_share_the_count(resonate: Resonate) -> None:
    """A function's local and remote calls are counted together: an id says what, not where."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1)
        await ctx.rpc(double, 2)

    resonate.register(double)
    assert ["w.double-1", "w.double-2"] == await ids_of(resonate, workflow)


async def test_number_is_taken_when_the_call_is_built(resonate: Resonate) -> None:
    """Ids follow the program's text: the number is taken when the call is built, not when it is awaited."""

    async def workflow(ctx: Context) -> list[int]:
        first, second = ctx.run(double, 1), ctx.run(double, 2)
        return [await second, await first]

    resonate.register(workflow)
    async with resonate:
        assert [4, 2] == await resonate.run("w", workflow)
        assert 2 == (await resonate.promises.get("w.double-1")).value


async def test_counting_ignores_case(resonate: Resonate) -> None:
    """Names that differ in case share a count, because a server's database may ignore case."""

    @durable(name="Double")
    async def loud(x: int) -> int:
        return x

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1)
        await ctx.run(loud, 1)

    assert ["w.Double-2", "w.double-1"] == await ids_of(resonate, workflow)


async def test_unsafe_characters(resonate: Resonate) -> None:
    """In an id, characters other than letters, digits, _ and - become _; the recorded name stays what it is."""

    @durable(name="päy/out v1.2")
    async def pay() -> None: ...

    async def workflow(ctx: Context) -> None:
        await ctx.run(pay)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        assert "päy/out v1.2" == (await resonate.promises.get("w.p_y_out_v1_2-1")).param["func"]


async def test_long_names(resonate: Resonate) -> None:
    """Of a name above 48 bytes 31 are kept, and a hash that tells it from others with the same beginning."""

    @durable(name="n" * 48)
    async def longest() -> None: ...

    @durable(name="n" * 49)
    async def longer() -> None: ...

    @durable(name="n" * 50)
    async def longer_still() -> None: ...

    async def workflow(ctx: Context) -> None:
        await ctx.run(longest)
        await ctx.run(longer)
        await ctx.run(longer_still)

    ids = await ids_of(resonate, workflow)
    parts = sorted((id.removeprefix("w.").removesuffix("-1") for id in ids), key=lambda part: part.count("n"))
    assert "n" * 48 in parts
    shortened = [part for part in parts if part != "n" * 48]
    assert [48, 48] == [len(part) for part in shortened]
    assert all(part.startswith("n" * 31 + "-") for part in shortened)
    assert 2 == len(set(shortened))


async def test_named(resonate: Resonate) -> None:
    """`.named()` gives any call an id of its own."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1).named("first")
        await ctx.sleep(1).named("nap")
        await ctx.rpc("double", 1).named("far")

    resonate.register(double)
    assert ["w.far", "w.first", "w.nap"] == await ids_of(resonate, workflow)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "~wake-1", "n" * 49, "é"])
async def test_name_that_is_no_segment(resonate: Resonate, name: str) -> None:
    """A name that could not stand in an id as it is, the engine's own ~ included, is refused at once."""

    async def workflow(ctx: Context) -> None:
        with pytest.raises(InvalidId, match="cannot name a call"):
            ctx.run(double, 1).named(name)

    assert [] == await ids_of(resonate, workflow)


@pytest.mark.parametrize("name", ["same", "SAME", "double-1"])
async def test_duplicate(resonate: Resonate, name: str) -> None:
    """An id that is used twice in a frame is an error at the second call, whatever made it and whatever its case."""

    async def workflow(ctx: Context) -> str:
        await ctx.run(double, 1)
        await ctx.run(double, 2).named("same")
        with pytest.raises(DuplicateId, match="already has a child") as caught:
            await ctx.run(triple, 3).named(name)
        return str(caught.value)

    resonate.register(workflow)
    async with resonate:
        assert ".named()" in await resonate.run("w", workflow)


async def test_engine_calls_share_the_namespace(resonate: Resonate) -> None:
    """A call cannot be given the id that a sleep has."""

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(1)
        with pytest.raises(DuplicateId):
            await ctx.run(double, 1).named("sleep-1")

    assert ["w.sleep-1"] == await ids_of(resonate, workflow)


ROOT = "r" * 128
SEGMENT = "s" * 46


async def test_local_id_that_would_be_too_long(world: World) -> None:
    """Above 180 bytes a local id is a hash below the branch; its parent tag is the branch, the real parent is told."""
    runs: list[str] = []

    @durable(name="t" * 40)
    async def leaf(ctx: Context) -> str | None:
        runs.append(ctx.id)
        return ctx.parent_id

    @durable(name=SEGMENT)
    async def child(ctx: Context) -> str | None:
        return await ctx.run(leaf)

    async def workflow(ctx: Context) -> str | None:
        parent = await ctx.run(child)
        await ctx.sleep(1)
        return parent

    async with world.process(workflow) as process:
        assert f"{ROOT}.{SEGMENT}-1" == await process.resonate.run(ROOT, workflow)
        record = await process.resonate.promises.get(runs[0])
    assert runs[0].startswith(f"{ROOT}.~")
    assert len(f"{ROOT}.~") + 22 == len(runs[0])
    assert ROOT == record.tags["resonate:parent"] == record.tags["resonate:branch"]
    assert f"{ROOT}.{SEGMENT}-1" == record.tags["resonate-anyio:parent"]


async def test_shortened_ids_are_found_again(world: World) -> None:
    """A replay mints the same shortened ids: what they name is not run again."""
    runs: list[str] = []

    @durable(name="t" * 40)
    async def leaf(x: int) -> int:
        runs.append("leaf")
        return x

    @durable(name=SEGMENT)
    async def child(ctx: Context) -> int:
        result = await ctx.run(leaf, 1) + await ctx.run(leaf, 2)
        await ctx.sleep(10)
        return result

    async def workflow(ctx: Context) -> int:
        return await ctx.run(child)

    process = world.process(workflow)
    process.kill_at(lambda request: len(runs) == 2 and request.kind == "task.create", answered=True)
    await world.run_until_killed(process, ROOT, workflow)
    async with world.process(workflow) as process:
        assert 3 == await (await process.resonate.get(ROOT))
    assert ["leaf", "leaf"] == runs


async def test_remote_id_that_would_be_too_long(resonate: Resonate) -> None:
    """Above 180 bytes a remote id is a hash below the origin, and a new branch."""

    @durable(name="t" * 40)
    async def remote(ctx: Context) -> list[Any]:
        return [ctx.id, ctx.parent_id, ctx.info.branch_id, ctx.origin_id]

    @durable(name=SEGMENT)
    async def child(ctx: Context) -> Any:
        return await ctx.rpc(remote)

    async def workflow(ctx: Context) -> Any:
        return await ctx.run(child)

    resonate.register(workflow)
    resonate.register(remote)
    async with resonate:
        id, parent, branch, origin = await resonate.run(ROOT, workflow)
        record = await resonate.promises.get(id)
    assert (f"{ROOT}.~", len(ROOT) + 2 + 22) == (id[: len(ROOT) + 2], len(id))
    assert (f"{ROOT}.{SEGMENT}-1", id, ROOT) == (parent, branch, origin)
    assert ROOT == record.tags["resonate:parent"]


async def test_detached_id(resonate: Resonate) -> None:
    """A detached call is a hash below the origin: it does not end with its caller."""

    async def child(ctx: Context) -> str:
        return await ctx.detached(double, 1)

    async def workflow(ctx: Context) -> str:
        return await ctx.run(child)

    resonate.register(workflow)
    resonate.register(double)
    async with resonate:
        id = await resonate.run("w", workflow)
        assert 2 == await (await resonate.get(id, int))
        tags = (await resonate.promises.get(id)).tags
    assert ("w.d", 3 + 22) == (id[:3], len(id))
    assert ("w", "w", id) == (tags["resonate:origin"], tags["resonate:parent"], tags["resonate:branch"])


async def test_tags(resonate: Resonate) -> None:
    """Every promise tells its origin, parent and branch; the branch of a local call is its caller."""

    async def child(ctx: Context) -> None:
        await ctx.run(double, 1)
        await ctx.rpc(double, 1)

    async def workflow(ctx: Context) -> None:
        await ctx.run(child)

    resonate.register(workflow)
    resonate.register(double)
    async with resonate:
        await resonate.run("w", workflow)
        rows = {p.id: p.tags async for p in resonate.promises.search()}
    lineage = {
        id: tuple(tags[f"resonate:{name}"] for name in ("origin", "parent", "branch", "scope"))
        for id, tags in rows.items()
    }
    assert {
        "w": ("w", "w", "w", "global"),
        "w.child-1": ("w", "w", "w", "local"),
        "w.child-1.double-1": ("w", "w.child-1", "w.child-1", "local"),
        "w.child-1.double-2": ("w", "w.child-1", "w.child-1.double-2", "global"),
    } == lineage


async def test_what_is_recorded_with_a_call(resonate: Resonate) -> None:
    """Function, version and a digest of the arguments are recorded; equal arguments share the digest."""

    @durable(name="step", version=3)
    async def step(x: int) -> int:
        return x

    async def workflow(ctx: Context) -> None:
        for x in (1, 1, 2):
            await ctx.run(step, x)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        first, same, other = [(await resonate.promises.get(f"w.step-{n}")).param for n in (1, 2, 3)]
    assert ("step", 3) == (first["func"], first["version"])
    assert first == same
    assert first["digest"] != other["digest"]


async def test_large_arguments(resonate: Resonate) -> None:
    """The digest of large arguments is that of a sample, and names its algorithm."""

    async def step(x: list[int]) -> None:
        pass

    async def workflow(ctx: Context) -> None:
        for x in (1, 1, 2):
            await ctx.run(step, [x] * 5_000)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        digests = [(await resonate.promises.get(f"w.step-{n}")).param["digest"] for n in (1, 2, 3)]
    assert ["2:", "2:"] == [digest[:2] for digest in digests[1:]]
    assert digests[0] == digests[1] != digests[2]


async def test_arguments_without_json(resonate: Resonate) -> None:
    """Arguments of a local call are passed as they are; where they have no JSON there is no digest."""
    thing = object()

    async def step(value: object) -> bool:
        return value is thing

    async def workflow(ctx: Context) -> bool:
        return await ctx.run(step, thing)

    resonate.register(workflow)
    async with resonate:
        assert await resonate.run("w", workflow)
        assert {"func": "step", "version": 1} == (await resonate.promises.get("w.step-1")).param


@pytest.mark.parametrize("id", ["", "a.b", "a:b", "r" * 129, "é" * 65, "a\0b"])
def test_root_id_that_is_refused(resonate: Resonate, id: str) -> None:
    """A root's id is 1 to 128 bytes without separators; anything else is refused before a request."""
    resonate.register(double)
    with pytest.raises(InvalidId):
        resonate.run(id, double, 1)
    with pytest.raises(InvalidId):
        resonate.rpc(id, "double", 1)


def test_refused_root_id_is_mended(resonate: Resonate) -> None:
    """The refusal of a separator proposes an id without it."""
    resonate.register(double)
    with pytest.raises(InvalidId, match="'a-b-c'"):
        resonate.run("a.b:c", double, 1)


async def test_longest_root_id(resonate: Resonate) -> None:
    """An id of exactly 128 bytes is fine."""
    resonate.register(double)
    async with resonate:
        assert 2 == await resonate.run(ROOT, double, 1)


async def test_prefix(wire: Wire) -> None:
    """The prefix goes before root ids, verbatim and once, and not before promises or children."""
    resonate = Resonate(network=wire, prefix="prod-")

    async def workflow(ctx: Context) -> int:
        return await ctx.run(double, 1)

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        assert 2 == await handle
        assert 2 == await resonate.run("prod-w", workflow)
        assert "prod-w" == handle.id == (await resonate.get("w")).id == (await resonate.get("prod-w")).id
        await resonate.promises.create("bare", 2_000_000_000_000)
        assert ["bare", "prod-w", "prod-w.double-1"] == list(await Look(resonate).states())


async def test_prefix_counts(network: LocalNetwork) -> None:
    """The limit of 128 bytes includes the prefix."""
    resonate = Resonate(network=network, prefix="prod-")
    resonate.register(double)
    with pytest.raises(InvalidId):
        resonate.run("r" * 124, double, 1)


@pytest.mark.parametrize(("prefix", "proposal"), [("prod.", "prod-"), ("a:b-", "a-b-")])
def test_prefix_that_is_refused(network: LocalNetwork, prefix: str, proposal: str) -> None:
    """A prefix with a separator is refused, with a proposal."""
    with pytest.raises(InvalidArgument, match=proposal):
        Resonate(network=network, prefix=prefix)


async def test_prefix_that_ends_in_a_colon(network: LocalNetwork) -> None:
    """A final colon is let through for peers that join so."""
    resonate = Resonate(network=network, prefix="prod:")
    resonate.register(double)
    async with resonate:
        handle = await resonate.run("r", double, 1).spawn()
        assert ("prod:r", 2) == (handle.id, await handle)
