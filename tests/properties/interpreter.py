"""The one workflow of the property tests: it does what the description that it is called with says.

Its outcome tells what each part gave, in the order of the description, so that two runs can be compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, assert_never

from attrs import define

from resonate_anyio import Context, DurableFuture, Info, Retry

from .graphs import (
    CANCELLED,
    Broken,
    Call,
    Detached,
    External,
    Fail,
    Flow,
    Leaf,
    Sleep,
    Spawn,
    Startable,
    Step,
    Try,
    seconds,
)
from .outside import Outside

ATTEMPTS: Final = 3
"""How often a leaf is tried in one run."""


async def leaf(info: Info, plan: Leaf) -> str:
    """A step: the work itself is done outside, which also counts the attempts."""
    return await info.get_dependency(Outside).work(info.id, plan)


async def flow(ctx: Context, plan: Flow) -> list[Any]:
    """Do what `plan` says, and give what came of each step."""
    return await _block(ctx, plan)


async def _block(ctx: Context, plan: Flow) -> list[Any]:
    block = _Block(ctx, [])
    outcomes = [await block.do(step) for step in plan.steps]
    return outcomes + [["awaited", await future] for future in block.futures]


@define
class _Block:
    """The steps of one body; calls that it has started are awaited at its end."""

    ctx: Context
    futures: list[DurableFuture[Any]]

    async def do(self, step: Step) -> object:
        match step:
            case Spawn(call=call, awaited=awaited):
                return await self._spawn(call, awaited=awaited)
            case Detached(flow=inner):
                return ["detached", await self.ctx.detached(flow, inner)]
            case Try(flow=inner):
                return await caught(_block(self.ctx, inner))
            case Fail():
                msg = f"{self.ctx.id} was to fail"
                raise Broken(msg)
            case Leaf() | Sleep() | External() | Call():
                return [step.kind, await started(self.ctx, step)]
            case _:
                assert_never(step)

    async def _spawn(self, call: Startable, *, awaited: bool) -> object:
        future: DurableFuture[Any] = await started(self.ctx, call).spawn()
        if awaited:
            self.futures.append(future)
        return "spawned"


def started(ctx: Context, call: Startable) -> Any:
    """The builder of a durable call."""
    match call:
        case Sleep(length=length):
            return ctx.sleep(seconds(length))
        case External(settled=settled, state=state):
            builder: Any = ctx.promise(param={"settled": settled, "state": state})
        case Leaf():
            builder = ctx.run(leaf, call).retry(Retry(attempts=ATTEMPTS, delay=1))
        case Call(how=how, flow=inner):
            builder = ctx.run(flow, inner) if how == "run" else ctx.rpc(flow, inner)
        case _:
            assert_never(call)
    if call.timeout is not None:
        builder = builder.timeout(seconds(call.timeout))
    cancelled = getattr(call, "cancelled", None)
    return builder if cancelled is None else builder.named(f"{CANCELLED}-{cancelled}")


async def caught(block: Awaitable[object]) -> object:
    """The outcome of a block, or its failure told as one."""
    try:
        return ["gave", await block]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
        return ["failed", told(error)]


def told(error: BaseException) -> dict[str, Any]:
    """An exception as data, without what differs from run to run."""
    text: dict[str, Any] = {"type": type(error).__name__, "text": str(error)}
    if notes := getattr(error, "__notes__", None):
        text["notes"] = list(notes)
    if isinstance(error, BaseExceptionGroup):
        text["members"] = [told(member) for member in error.exceptions]
    return text


FUNCTIONS: Final[tuple[Callable[..., Any], ...]] = (flow, leaf)
