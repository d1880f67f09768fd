"""`RESONATE_PREFIX`: several programs share a server without meeting (docs/distribution.md 5.3)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from resonate_anyio import Context, NotFound, Resonate

from .conftest import Make


async def step(number: int) -> int:
    """Return the next number."""
    return number + 1


async def flow(ctx: Context) -> str:
    """Make one step and return the workflow's own id."""
    await ctx.run(step, 1)
    return ctx.id


@pytest.fixture
def resonate(make: Make) -> Resonate:
    """A client whose ids begin with `prod-`."""
    resonate = make(prefix="prod-", group="workers")
    resonate.register(flow)
    return resonate


async def test_the_prefix_goes_before_root_ids(resonate: Resonate) -> None:
    """`run` and `rpc` put the prefix before the id, verbatim, and the handle has the full id."""
    async with resonate:
        run = await resonate.run("a", flow).spawn()
        rpc = await resonate.rpc("b", flow).spawn()

        assert ("prod-a", "prod-b") == (run.id, rpc.id)
        assert ["prod-a", "prod-b"] == [await run, await rpc]


async def test_the_prefix_is_never_put_twice(resonate: Resonate) -> None:
    """An id that begins with the prefix already stays as it is, so the full id names the same execution."""
    async with resonate:
        first = await resonate.run("a", flow).spawn()
        second = await resonate.run(first.id, flow).spawn()

        assert first.id == second.id == "prod-a"


async def test_children_are_not_prefixed(resonate: Resonate) -> None:
    """A child's id begins with its parent's, which has the prefix once."""
    async with resonate:
        await resonate.run("a", flow)

        assert ["prod-a", "prod-a.step-1"] == [promise.id async for promise in resonate.promises.search()]


async def test_lookups_take_ids_with_and_without_the_prefix(resonate: Resonate) -> None:
    """`get` and `cancel` prefix the ids of roots; the id of a child is taken as it is."""
    async with resonate:
        await resonate.run("a", flow)

        for id in ("a", "prod-a"):
            assert await (await resonate.get(id)) == "prod-a"
            await resonate.cancel(id)
        assert await (await resonate.get("prod-a.step-1", int)) == 2
        with pytest.raises(NotFound):
            await resonate.get("a.step-1")


async def test_promises_by_hand_are_not_prefixed(resonate: Resonate) -> None:
    """`promises.*` takes ids as they are."""
    async with resonate:
        promise = await resonate.promises.create("by-hand", 2_000_000_000_000)
        await resonate.promises.resolve("by-hand", 1)

        assert promise.id == "by-hand"
        assert (await resonate.promises.get("by-hand")).state == "resolved"
        with pytest.raises(NotFound):
            await resonate.promises.get("prod-by-hand")


async def test_schedules_keep_their_names_and_fire_prefixed_ids(resonate: Resonate) -> None:
    """A schedule's name has no prefix; the ids that it fires do."""
    async with resonate:
        schedule = await resonate.schedule("nightly", "0 0 * * *", flow)

        assert schedule.id == "nightly"
        assert schedule.promise_id == "prod-{{.id}}-{{.timestamp}}"
        assert (await resonate.schedules.get("nightly")).id == "nightly"


async def test_groups_are_not_prefixed(resonate: Resonate) -> None:
    """Targets name groups as they are."""
    async with resonate:
        await resonate.run("a", flow)

        promise = await resonate.promises.get("prod-a")

        assert promise.tags["resonate:target"].startswith("poll://any@workers/")


async def test_an_empty_prefix_overrules_the_environment(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESONATE_PREFIX is used unless a prefix is given, be it the empty one."""
    monkeypatch.setenv("RESONATE_PREFIX", "env-")
    ids = []
    for settings in ({}, {"prefix": ""}, {"prefix": "arg-"}):
        resonate = make(**settings)
        resonate.register(flow)
        async with resonate:
            ids.append(await resonate.run("a", flow))

    assert ["env-a", "a", "arg-a"] == ids


async def test_a_prefix_may_end_in_a_colon(make: Make) -> None:
    """`prod:` is let through for peers that join ids so, and the rest works with it, children too."""
    resonate = make(prefix="prod:")
    resonate.register(flow)
    async with resonate:
        handle = await resonate.run("a", flow).timeout(timedelta(hours=1)).spawn()

        assert await handle == "prod:a"
        assert await (await resonate.get("prod:a.step-1")) == 2
