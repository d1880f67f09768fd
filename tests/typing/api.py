"""Never run, only checked: what the type checkers say of calls, right and wrong.

Each `type: ignore` below stands on a line that has to be an error: both checkers report those that they do not need.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Annotated, Any, Literal, TypeVar, assert_type
from uuid import UUID

import anyio
import attrs

from resonate_anyio import (
    Context,
    DurableFuture,
    DurablePromise,
    DurableScope,
    DurableTaskGroup,
    Handle,
    Info,
    Resonate,
    Retry,
    Schedule,
    durable,
)

T = TypeVar("T")


@attrs.frozen
class Page:
    """A result of the user's own."""

    text: str


class Pool:
    """A dependency, with durable methods."""

    async def count(self, page: Page) -> int:
        raise NotImplementedError

    async def crawl(self, ctx: Context, url: str) -> Page:
        raise NotImplementedError


# The kinds of functions: workflows, leaves with metadata, pure leaves, the latter two also synchronous


@durable
async def flow(ctx: Context, url: str, depth: int = 0) -> Page:
    raise NotImplementedError


@durable(name="other", version=2, retry=Retry(attempts=3), timeout=timedelta(minutes=1))
async def info_leaf(info: Info, page: Page) -> int:
    raise NotImplementedError


def sync_info_leaf(info: Info, page: Page) -> bytes:
    raise NotImplementedError


async def fetch(url: str, *, retries: int = 0) -> str:
    raise NotImplementedError


def parse(text: str) -> Page:
    raise NotImplementedError


async def nothing() -> None:
    raise NotImplementedError


async def first(items: list[T]) -> T:
    raise NotImplementedError


async def many(*urls: str, **headers: int) -> dict[str, int]:
    raise NotImplementedError


resonate = Resonate(group="g", ttl=timedelta(minutes=1))


async def inside_run(ctx: Context, url: str) -> None:
    """`ctx.run` gives what the annotations of the callee say."""
    assert_type(await ctx.run(flow, url), Page)
    assert_type(await ctx.run(flow, url, 1), Page)
    assert_type(await ctx.run(flow, url, depth=1), Page)
    assert_type(await ctx.run(info_leaf, Page("")), int)
    assert_type(await ctx.run(sync_info_leaf, Page("")), bytes)
    assert_type(await ctx.run(fetch, url), str)
    assert_type(await ctx.run(fetch, url, retries=2), str)
    assert_type(await ctx.run(parse, url), Page)
    assert_type(await ctx.run(first, [1]), int)
    assert_type(await ctx.run(many, url, url, accept=1), dict[str, int])
    assert_type(await ctx.run(Pool().count, Page("")), int)
    assert_type(await ctx.run(Pool().crawl, url), Page)
    assert_type(await ctx.run(partial(fetch, url)), str)
    await ctx.run(nothing)


async def inside_run_wrong(ctx: Context, url: str) -> None:
    """Wrong arguments of `ctx.run` are errors."""
    await ctx.run(flow)  # type: ignore[call-overload]
    await ctx.run(flow, 1)  # type: ignore[call-overload]
    await ctx.run(flow, url, "1")  # type: ignore[call-overload]
    await ctx.run(flow, url, deep=1)  # type: ignore[call-arg]
    await ctx.run(info_leaf, url)  # type: ignore[call-overload]
    await ctx.run(info_leaf)  # type: ignore[call-overload]
    await ctx.run(sync_info_leaf, 1)  # type: ignore[call-overload]
    await ctx.run(fetch)  # type: ignore[call-overload]
    await ctx.run(fetch, 1)  # type: ignore[call-overload]
    await ctx.run(fetch, url, 2)  # type: ignore[call-overload]
    await ctx.run(fetch, url, retries="2")  # type: ignore[misc, arg-type]
    await ctx.run(parse, 1)  # type: ignore[call-overload]
    await ctx.run(nothing, 1)  # type: ignore[call-overload]
    await ctx.run(many, 1)  # type: ignore[call-overload]
    await ctx.run(parse(url))  # type: ignore[call-overload]
    await ctx.run("fetch", url)  # type: ignore[call-overload]
    await ctx.run(fetch, url).timeout("5")  # type: ignore[arg-type]
    await ctx.run(fetch, url).retry(3)  # type: ignore[arg-type]
    await ctx.run(fetch, url).target("gpu")  # type: ignore[attr-defined]


async def inside_spawned(ctx: Context, url: str) -> None:
    """`.spawn()` keeps the type, as do all options."""
    page = await ctx.run(flow, url).timeout(5).named("x").spawn()
    assert_type(page, DurableFuture[Page])
    assert_type(await page, Page)
    assert_type(page.result(), Page)
    assert_type(page.exception(), Exception | None)
    assert_type(page.id, str)
    assert_type(await ctx.run(fetch, url).timeout(timedelta(hours=1)).retry(Retry()).named("y"), str)
    assert_type(await ctx.run(info_leaf, Page("")).retry(None).spawn(), DurableFuture[int])
    assert_type(await ctx.rpc(fetch, url).timeout(5).target("gpu").version(2).named("z").spawn(), DurableFuture[str])
    assert_type(await ctx.sleep(timedelta(hours=1)).spawn(), DurableFuture[None])
    assert_type(
        await asyncio.gather(ctx.run(fetch, url), ctx.run(flow, url), ctx.sleep(1), page),
        tuple[str, Page, None, Page],
    )


async def inside_rpc(ctx: Context, url: str) -> None:
    """`ctx.rpc` by function is as exact as `ctx.run`; by name, `.returns(T)` says the type."""
    assert_type(await ctx.rpc(flow, url), Page)
    assert_type(await ctx.rpc(info_leaf, Page("")), int)
    assert_type(await ctx.rpc(sync_info_leaf, Page("")), bytes)
    assert_type(await ctx.rpc(fetch, url, retries=1), str)
    assert_type(await ctx.rpc(parse, url), Page)
    assert_type(await ctx.rpc("fetch", url, anything="goes"), Any)
    assert_type(await ctx.rpc("fetch", url).returns(str), str)
    assert_type(await ctx.rpc("fetch", url).returns(list[int]).target("gpu").timeout(5), list[int])
    assert_type(await ctx.rpc("fetch", url).returns(Page).spawn(), DurableFuture[Page])
    assert_type(await ctx.run(fetch, url).returns(Page), Page)
    assert_type(await ctx.rpc("fetch", url).returns(int | None), int | None)
    assert_type(await ctx.rpc("fetch", url).returns(None), None)
    assert_type(await ctx.rpc("fetch", url).returns(Annotated[int, "cents"]), int)
    assert_type(await ctx.rpc("fetch", url).returns(Literal["a", "b"]), Literal["a", "b"])
    assert_type(
        await ctx.rpc("fetch", url).returns(tuple[int, ...] | dict[str, Page]), tuple[int, ...] | dict[str, Page]
    )
    assert_type(await ctx.rpc("fetch", url).returns(Any), Any)
    assert_type(await ctx.run(fetch, url).returns(int | None), int | None)
    assert_type(await ctx.run(fetch, url).returns(int | None).spawn(), DurableFuture[int | None])

    ctx.run(fetch, url).returns(3)  # type: ignore[arg-type]
    ctx.rpc("fetch", url).returns(3)  # type: ignore[arg-type]
    ctx.promise().returns(3)  # type: ignore[arg-type]
    await ctx.rpc(flow, 1)  # type: ignore[call-overload]
    await ctx.rpc(info_leaf, url)  # type: ignore[call-overload]
    await ctx.rpc(sync_info_leaf, url)  # type: ignore[call-overload]
    await ctx.rpc(fetch, url, 1)  # type: ignore[call-overload]
    await ctx.rpc(parse)  # type: ignore[call-overload]
    await ctx.rpc(1)  # type: ignore[call-overload]
    await ctx.rpc(fetch, url).retry(None)  # type: ignore[attr-defined]


async def inside_others(ctx: Context, info: Info, url: str) -> None:
    """The other calls of a context, and what it knows."""
    await ctx.sleep(1.5)
    assert_type(await ctx.promise(param={"a": 1}), Any)
    assert_type(await ctx.promise().returns(Page), Page)
    assert_type(await ctx.promise().returns(Page | None), Page | None)
    assert_type(await ctx.promise().returns(Page).timeout(5).spawn(), DurableFuture[Page])
    assert_type(await ctx.rpc(fetch, url).bare_args(), str)
    assert_type(await ctx.detached(flow, url).bare_args(), str)
    assert_type(await ctx.detached(flow, url).timeout(5).target("gpu").version(1).named("x"), str)
    assert_type(await ctx.detached("flow", url), str)
    assert_type(ctx.get_dependency(Pool), Pool)
    assert_type(info.get_dependency(Pool), Pool)
    assert_type(ctx.info, Info)
    assert_type(ctx.parent_id, str | None)
    assert_type((ctx.timeout_at, info.timeout_at), tuple[datetime, datetime])

    await ctx.sleep("1")  # type: ignore[arg-type]
    await ctx.detached(flow, 1)  # type: ignore[call-overload]
    await ctx.detached(info_leaf, url)  # type: ignore[call-overload]
    await ctx.detached(parse, 1)  # type: ignore[call-overload]
    ctx.id = "other"  # type: ignore[misc]
    info.id = "other"  # type: ignore[misc]


async def inside_groups(ctx: Context, url: str) -> None:
    """Task groups start what `ctx` calls, with the same types."""
    async with ctx.task_group(limit=3) as tg:
        assert_type(tg, DurableTaskGroup)
        assert_type(tg.cancel_scope, anyio.CancelScope)
        assert_type(tg.start(ctx.run(flow, url).timeout(5)), DurableFuture[Page])
        assert_type(tg.start(ctx.rpc("fetch", url).returns(str)), DurableFuture[str])
        assert_type(tg.run(flow, url, depth=1), DurableFuture[Page])
        assert_type(tg.run(info_leaf, Page("")), DurableFuture[int])
        assert_type(tg.run(sync_info_leaf, Page("")), DurableFuture[bytes])
        assert_type(tg.run(fetch, url, retries=1), DurableFuture[str])
        assert_type(tg.run(parse, url), DurableFuture[Page])
        assert_type(tg.rpc(flow, url), DurableFuture[Page])
        assert_type(tg.rpc(info_leaf, Page("")), DurableFuture[int])
        assert_type(tg.rpc(sync_info_leaf, Page("")), DurableFuture[bytes])
        assert_type(tg.rpc(fetch, url), DurableFuture[str])
        assert_type(tg.rpc(parse, url), DurableFuture[Page])
        assert_type(tg.rpc("fetch", url), DurableFuture[Any])
        assert_type(tg.sleep(timedelta(hours=1)), DurableFuture[None])
        assert_type(tg.promise(param=1), DurableFuture[Any])
        tg.start_soon(fetch, url)
        tg.start_soon(flow, ctx, url, 1, name="flow")

        tg.run(flow)  # type: ignore[call-overload]
        tg.run(info_leaf, url)  # type: ignore[call-overload]
        tg.run(parse, 1)  # type: ignore[call-overload]
        tg.rpc(flow, 1)  # type: ignore[call-overload]
        tg.rpc(1)  # type: ignore[call-overload]
        tg.sleep("1")  # type: ignore[arg-type]
        tg.start(fetch(url))  # type: ignore[arg-type]
        tg.start(tg.sleep(1))  # type: ignore[arg-type]
        tg.start_soon(fetch, 1)  # type: ignore[arg-type]
        tg.start_soon(parse, url)  # type: ignore[arg-type]
    ctx.task_group(3)  # type: ignore[call-arg]
    ctx.task_group(limit="3")  # type: ignore[arg-type]


async def inside_choices(ctx: Context, url: str, urls: list[str]) -> None:
    """Several calls give what each of them gives."""
    future = await ctx.run(fetch, url).spawn()
    assert_type(await ctx.gather(ctx.run(fetch, url), ctx.run(flow, url), limit=2), tuple[str, Page])
    assert_type(
        await ctx.gather(ctx.run(fetch, url), ctx.sleep(1), ctx.run(flow, url), limit=2), tuple[str, None, Page]
    )
    assert_type(await ctx.gather(*(ctx.run(fetch, url) for url in urls)), tuple[str, ...])
    assert_type(await ctx.map(fetch, urls), list[str])
    assert_type(await ctx.map(parse, urls, limit=2), list[Page])
    assert_type(await ctx.map(info_leaf, [Page("")]), list[int])
    assert_type(await ctx.map(sync_info_leaf, [Page("")]), list[bytes])
    assert_type(await ctx.first(ctx.run(fetch, url), future), tuple[int, str])
    assert_type(await ctx.first(future, ctx.sleep(5)), tuple[int, str | None])
    async for completed in ctx.as_completed(ctx.run(fetch, url), future):
        assert_type(completed, DurableFuture[str])
        assert_type(completed.result(), str)

    await ctx.gather(future, future)  # type: ignore[call-overload]
    await ctx.gather(fetch(url), fetch(url))  # type: ignore[call-overload]
    await ctx.map(fetch, [1])  # type: ignore[arg-type]
    await ctx.map(fetch, urls, 2)  # type: ignore[call-overload]
    await ctx.first(fetch(url))  # type: ignore[arg-type]
    ctx.as_completed(fetch(url))  # type: ignore[arg-type]


async def inside_scopes(ctx: Context) -> None:
    """Durable deadlines, and values that a replay gets again."""
    with ctx.fail_after(5) as scope:
        assert_type(scope, DurableScope)
    with ctx.move_on_after(timedelta(seconds=5), shield=True) as scope:
        scope.cancel()
    assert_type((scope.deadline, scope.cancel_called, scope.cancelled_caught), tuple[datetime, bool, bool])
    assert_type(await ctx.now(), datetime)
    assert_type(ctx.random(), Random)
    assert_type(ctx.uuid(), UUID)

    ctx.fail_after("5")  # type: ignore[arg-type]
    ctx.move_on_after(None)  # type: ignore[arg-type]
    ctx.move_on_after(5, True)  # type: ignore[call-arg]
    scope.deadline = ctx.timeout_at  # type: ignore[misc]


async def outside(url: str) -> None:
    """The client's calls are as exact."""
    assert_type(await resonate.run("a", flow, url), Page)
    assert_type(await resonate.run("a", flow, url, depth=1), Page)
    assert_type(await resonate.run("a", info_leaf, Page("")), int)
    assert_type(await resonate.run("a", sync_info_leaf, Page("")), bytes)
    assert_type(await resonate.run("a", fetch, url, retries=1), str)
    assert_type(await resonate.run("a", parse, url), Page)
    assert_type(await resonate.run("a", first, [1]), int)
    assert_type(await resonate.run("a", "flow", url), Any)
    assert_type(await resonate.run("a", "flow", url).returns(Page), Page)
    assert_type(await resonate.rpc("a", flow, url), Page)
    assert_type(await resonate.rpc("a", info_leaf, Page("")), int)
    assert_type(await resonate.rpc("a", sync_info_leaf, Page("")), bytes)
    assert_type(await resonate.rpc("a", fetch, url), str)
    assert_type(await resonate.rpc("a", parse, url), Page)
    assert_type(await resonate.rpc("a", "flow", url), Any)
    assert_type(await resonate.rpc("a", "flow", url).returns(list[Page]), list[Page])
    assert_type(await resonate.run("a", flow, url).timeout(1).version(1).tags({"a": "b"}).target("g"), Page)

    handle = await resonate.rpc("a", flow, url).timeout(1).version(1).tags({"a": "b"}).target("g").spawn()
    assert_type(handle, Handle[Page])
    assert_type(await handle, Page)
    assert_type(await handle.result(), Page)
    assert_type(await handle.done(), bool)
    assert_type(handle.id, str)
    assert_type(await resonate.run("a", flow, url).returns(int).spawn(), Handle[int])
    assert_type(await resonate.get("a", Page), Handle[Page])
    assert_type(await resonate.get("a", list[Page]), Handle[list[Page]])
    assert_type(await (await resonate.get("a")), Any)
    assert_type(await (await resonate.get("a", int | None)), int | None)
    assert_type(await resonate.get("a", type_=Annotated[list[int], "ids"]), Handle[list[int]])
    assert_type(await resonate.run("a", "flow", url).returns(int | None), int | None)
    assert_type(await resonate.rpc("a", "flow", url).returns(Page | None).spawn(), Handle[Page | None])


async def outside_wrong(url: str) -> None:
    """Wrong calls of the client are errors."""
    await resonate.run(flow, url)  # type: ignore[call-overload]
    await resonate.run("a", flow)  # type: ignore[call-overload]
    await resonate.run("a", flow, 1)  # type: ignore[call-overload]
    await resonate.run("a", info_leaf, url)  # type: ignore[call-overload]
    await resonate.run("a", sync_info_leaf, url)  # type: ignore[call-overload]
    await resonate.run("a", fetch, url, 1)  # type: ignore[call-overload]
    await resonate.run("a", parse, 1)  # type: ignore[call-overload]
    await resonate.rpc("a", flow, 1)  # type: ignore[call-overload]
    await resonate.rpc("a", info_leaf, url)  # type: ignore[call-overload]
    await resonate.rpc("a", fetch, url, 1)  # type: ignore[call-overload]
    await resonate.run("a", fetch, url).tags({"a": 1})  # type: ignore[dict-item]
    await resonate.run("a", fetch, url).version("1")  # type: ignore[arg-type]
    await resonate.run("a", fetch, url).retry(None)  # type: ignore[attr-defined]
    resonate.run("a", fetch, url).returns(3)  # type: ignore[arg-type]
    resonate.rpc("a", fetch, url).returns(3)  # type: ignore[arg-type]
    await resonate.get("a", 3)  # type: ignore[call-overload]
    resonate.register("flow")  # type: ignore[call-overload]
    Resonate(ttl="60")  # type: ignore[arg-type]
    Resonate(colour="red")  # type: ignore[call-arg]
    Resonate.local(ttl="60")  # type: ignore[arg-type]
    Resonate.local(colour="red")  # type: ignore[call-arg]


async def sub_clients(url: str) -> None:
    """Promises and schedules by hand."""
    assert_type(await resonate.promises.create("a", 1, {"b": 2}, {"team": "x"}), DurablePromise)
    assert_type(await resonate.promises.get("a"), DurablePromise)
    assert_type(await resonate.promises.settle("a", "resolved", 1), DurablePromise)
    assert_type(await resonate.promises.resolve("a"), DurablePromise)
    assert_type([promise async for promise in resonate.promises.search(state="pending")], list[DurablePromise])
    assert_type(await resonate.rpc("a", flow, url).bare_args(), Page)
    await resonate.run("a", flow, url).bare_args()  # type: ignore[attr-defined]
    assert_type(await resonate.schedule("s", "@daily", flow, url).bare_args(), Schedule)
    assert_type(await resonate.schedule("s", "@daily", flow, url).timeout(1).tags({}).target("g").version(1), Schedule)
    assert_type(await resonate.schedule("s", "@daily", "flow", url), Schedule)
    assert_type(await resonate.schedules.create("s", "@daily", "p", timedelta(1)), Schedule)
    assert_type([schedule async for schedule in resonate.schedules.search()], list[Schedule])

    await resonate.promises.settle("a", "pending")  # type: ignore[arg-type]
    await resonate.promises.create("a", "tomorrow")  # type: ignore[arg-type]
    resonate.promises.search(state="done")  # type: ignore[arg-type]
    await resonate.schedule("s", "@daily", flow, 1)  # type: ignore[call-overload]
    await resonate.schedule("s", "@daily", parse)  # type: ignore[call-overload]


def decorated() -> None:
    """Decorators keep the function's own type."""

    @resonate.register
    async def bare(ctx: Context, url: str) -> int:
        raise NotImplementedError

    @resonate.register(name="x", version=2)
    def called(url: str) -> int:
        raise NotImplementedError

    expected: Callable[[Context, str], Awaitable[int]] = bare
    expected_too: Callable[[str], int] = called
    wrong: Callable[[int], int] = called  # type: ignore[assignment]
    del expected, expected_too, wrong
    assert_type(resonate.with_dependency(Pool()).with_dependency(1, int), Resonate)
    durable(retry=3)  # type: ignore[call-overload]
    durable("name")  # type: ignore[call-overload]
