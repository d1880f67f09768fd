"""What other programs record gives a value or a documented error, whatever it is, and shows where it comes from."""

from __future__ import annotations

import json
import traceback
from base64 import b64encode
from typing import Any

import anyio
import pytest

from resonate_anyio import ApplicationError, Context, DecodeError, NonDeterminismError, Resonate
from resonate_anyio._protocol import PromiseCreate, PromiseSettle, PromiseState, Request, Response, Value
from resonate_anyio.abc import Network

from ..chosen import dotted
from .harness import Look, World, creates, settles

OURS = "resonate_anyio._errors"


def packed(text: str) -> Value:
    return Value(b64encode(text.encode()).decode())


PAYLOADS = {
    "arguments of another type": json.dumps({"type": f"{OURS}:ApplicationError", "args": [1, 2, 3, 4]}),
    "too few": json.dumps({"type": f"{OURS}:ApplicationError", "args": [1]}),
    "no message": json.dumps({"type": f"{OURS}:NotRegistered", "args": ["f", None, [1]]}),
    "unhashable": json.dumps({"type": f"{OURS}:DurableCancelledError", "args": ["x", [1]]}),
    "numbers": json.dumps({"type": f"{OURS}:NonDeterminismError", "args": [1, 2, 3]}),
    "a lone surrogate": '{"name": "\\ud800", "message": ["\\ud800"], "stack": "\\ud800", "notes": ["\\ud800"]}',
    "an infinity": '{"message": 1e999, "args": [1e999], "type": "builtins:ValueError"}',
    "only an infinity": "1e999",
    "no JSON": "{",
    "deep": "[" * 50_000,
    "a group of nothing": json.dumps({"type": "builtins:ExceptionGroup", "args": ["x"], "errors": []}),
    "what ends a program": json.dumps({"type": "builtins:SystemExit", "args": [1]}),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
async def test_error_of_a_peer(world: World, payload: str) -> None:
    """Whatever a peer records as an error is one that the code can catch, show and fail with: it runs once."""
    ran: list[str] = []

    async def flow(ctx: Context) -> None:
        ran.append("flow")
        try:
            await ctx.rpc("peer").target("elsewhere")
        except ApplicationError as exc:
            ran.append(str(exc))
            raise

    process = world.process(flow)

    async def after(request: Request, _: Response) -> None:
        if creates(dotted("w.peer-1"))(request):
            settle = PromiseSettle(id=dotted("w.peer-1"), state=PromiseState.REJECTED, value=packed(payload))
            await Look(process.resonate).request(settle)

    process.wire.after = after
    async with process:
        with anyio.fail_after(60), pytest.raises(ApplicationError):
            await process.resonate.run("w", flow)
        await anyio.sleep(60)
    assert 2 == len(ran)


@pytest.mark.parametrize(
    "payload", ["{", '"x"', "[" * 50_000, '{"x": 1e999}'], ids=["no JSON", "text", "deep", "object"]
)
async def test_value_of_a_peer(resonate: Resonate, payload: str) -> None:
    """A value that does not fit what `.returns` says, or is none, is a DecodeError; any type may be asked for."""
    types: list[Any] = [int, "int", 5, [int], list["Nowhere"], print]  # type: ignore[name-defined] # noqa: F821

    async def flow(ctx: Context) -> list[str]:
        caught: list[str] = []
        for type_ in types:
            try:
                await ctx.promise().named("p" + str(len(caught))).returns(type_)
            except DecodeError as exc:
                caught.append(type(exc).__name__)
        return caught

    resonate.register(flow)
    async with resonate:
        handle = await resonate.run("w", flow).spawn()
        for number in range(len(types)):
            await anyio.sleep(1)
            id = dotted(f"w.p{number}")
            settle = PromiseSettle(id=id, state=PromiseState.RESOLVED, value=packed(payload))
            await Look(resonate).request(settle)
        with anyio.fail_after(60):
            assert ["DecodeError"] * len(types) == await handle


@pytest.mark.parametrize(
    ("fact", "param"),
    [
        ("now", {"fact": "ctx.now", "value": "soon"}),
        ("now", {"fact": "ctx.now"}),
        ("now", {"fact": "ctx.now", "value": 10**400}),
        ("now", {"fact": "ctx.now", "value": 1, "cancelled": {"by": "scope", "depth": -9}, "waited": 10**400}),
        ("now", {"fact": "ctx.now", "value": 1, "cancelled": {"by": "group", "depth": -9}, "waited": -1}),
        ("first", {"fact": "ctx.first", "value": 7}),
        ("first", {"fact": "ctx.first", "value": "0"}),
        ("first", {"fact": "ctx.first", "value": -1}),
        ("completed", {"fact": "ctx.as_completed", "value": 2}),
    ],
)
async def test_choice_of_a_peer(world: World, fact: str, param: dict[str, Any]) -> None:
    """A choice on record that cannot be one of this call's halts the execution, or is not taken for one."""

    async def step() -> int:
        return 1

    async def flow(ctx: Context) -> int:
        await ctx.run(step)
        if fact == "now":
            return (await ctx.now()).year
        if fact == "first":
            return (await ctx.first(ctx.run(step), ctx.run(step)))[0]
        async for _ in ctx.as_completed(ctx.run(step), ctx.run(step)):
            pass
        return 0

    segment = "~completed-1-1" if fact == "completed" else f"~{fact}-1"
    process = world.process(flow)

    async def after(request: Request, _: Response) -> None:
        if settles(dotted("w.step-1"))(request):
            root = await Look(process.resonate).promise("w")
            tags = {"resonate:branch": "w", "resonate:parent": "w", "resonate:scope": "local", "resonate:timer": "true",
                    "resonate:origin": "w"}  # fmt: skip
            create = PromiseCreate(
                id=dotted(f"w.{segment}"), timeout_at=root.created_at, param=packed(json.dumps(param)), tags=tags
            )
            await Look(process.resonate).request(create)
            process.kill()

    process.wire.after = after
    await world.run_until_killed(process, "w", flow)
    async with world.process(flow) as process:
        handle = await process.resonate.get("w")
        with anyio.fail_after(3600):
            try:
                outcome: int | str = await handle
            except NonDeterminismError as exc:
                outcome = exc.id
    assert isinstance(outcome, int) or outcome == dotted(f"w.{segment}")


# --- remote tracebacks


def notes_of(exc: BaseException) -> list[str]:
    return list(getattr(exc, "__notes__", []))


def shown(exc: BaseException) -> str:
    return "".join(traceback.format_exception(exc))


async def break_down() -> None:
    error = ValueError("broken")
    error.add_note("a note of its own")
    raise error


async def pass_on(ctx: Context) -> None:
    await ctx.run(break_down)


async def relay(ctx: Context, times: int) -> None:
    await (ctx.rpc(relay, times - 1) if times else ctx.rpc(pass_on))


@pytest.mark.parametrize("times", [0, 1, 8])
async def test_remote_traceback(network: Network, times: int) -> None:
    """An error of another execution has its traceback as one note, however many executions it has passed through."""
    worker, client = Resonate(network=network, pid="w"), Resonate(network=network, pid="c", group="client")
    for function in (relay, pass_on):
        worker.register(function)
    seen: list[Exception] = []

    async def flow(ctx: Context) -> None:
        try:
            await ctx.rpc("relay", times).target("default")
        except ValueError as exc:
            seen.append(exc)
            raise

    client.register(flow)
    async with worker, client:
        with pytest.raises(ValueError, match="broken") as caught:
            await client.run("w", flow)
        with pytest.raises(ValueError, match="broken") as looked_up:
            await (await worker.get("w"))
    for exc in (seen[0], looked_up.value, caught.value):
        own, remote = notes_of(exc)
        assert "a note of its own" == own
        assert remote.startswith("Raised in another process")
        # It is that of the place where it was raised first, once.
        assert 1 == remote.count("raise error")
        assert 1 == remote.count("Traceback (most recent call last)")
        assert remote in shown(exc)


async def test_local_errors_have_no_such_note(world: World) -> None:
    """An error of a local call has its own traceback; live and on a replay it has the same notes."""
    seen: list[list[str]] = []

    async def flow(ctx: Context) -> None:
        for call in (ctx.run(break_down), ctx.rpc("peer").target("elsewhere")):
            try:
                await call
            except (ValueError, ApplicationError) as exc:
                seen.append(notes_of(exc))
        await ctx.run(pass_on)

    process = world.process(flow, pass_on)
    recorded = packed(json.dumps({"name": "TypeError", "message": "m", "stack": "remote stack\n" * 10_000}))

    async def after(request: Request, _: Response) -> None:
        if creates(dotted("w.peer-1"))(request):
            settle = PromiseSettle(id=dotted("w.peer-1"), state=PromiseState.REJECTED, value=recorded)
            await Look(process.resonate).request(settle)
        if creates(dotted("w.pass_on-1"))(request):
            process.kill()

    process.wire.after = after
    await world.run_until_killed(process, "w", flow)
    async with world.process(flow, pass_on) as process:
        with pytest.raises(ValueError, match="broken"):
            await (await process.resonate.get("w"))
        with pytest.raises(ValueError, match="broken") as caught:
            await process.resonate.run("v", pass_on)
        assert "break_down" in shown(caught.value)
    assert 4 == len(seen)
    assert seen[:2] == seen[2:]
    assert ["a note of its own"] == seen[0]
    [remote] = seen[1]
    assert "remote stack" in remote
    assert len(remote) < 17_000
    # It was raised here.
    assert ["a note of its own"] == notes_of(caught.value)
