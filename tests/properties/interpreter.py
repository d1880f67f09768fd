"""The one workflow of the property tests: it does what the description that it is called with says.

Its outcome tells what each part gave, in the order of the description, so that two runs can be compared. Whatever a
step gives is shown to the world outside, too, which minds if a replay is given anything else than the first run was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, assert_never

from anyio import create_task_group
from attrs import define, field

from resonate_anyio import Context, DurableFuture, Info, Retry
from resonate_anyio._codec._exceptions import RemoteTraceback

from .graphs import (
    CANCELLED,
    Broken,
    Call,
    Completed,
    Detached,
    External,
    Facts,
    Fail,
    First,
    Flow,
    Gather,
    Group,
    Leaf,
    Nursery,
    Pause,
    Scope,
    Sleep,
    Spawn,
    Startable,
    Step,
    Try,
    seconds,
)
from .outside import Outside

_ATTEMPTS: Final = 3
"""How often a leaf is tried in one run."""


async def leaf(info: Info, plan: Leaf) -> str:
    """A step: the work itself is done outside, where the attempts are counted as well."""
    return await info.get_dependency(Outside).work(info.id, plan)


async def flow(ctx: Context, plan: Flow) -> list[Any]:
    """Do what `plan` says, and give what came of each step."""
    return await _Block(ctx, "").run(plan)


FUNCTIONS: Final[tuple[Callable[..., Any], ...]] = (flow, leaf)


@define
class _Block:
    """One body, or a block in one. Calls that it has spawned are awaited at its end.

    Attributes:
        path: where in the description it stands.
    """

    ctx: Context
    path: str
    _futures: list[DurableFuture[Any]] = field(factory=list, init=False)
    _position: int = field(default=0, init=False)

    async def run(self, plan: Flow) -> list[Any]:
        """Do all steps."""
        outcomes = [await self._witnessed(step) for step in plan.steps]
        return outcomes + [["awaited", await future] for future in self._futures]

    async def _witnessed(self, step: Step) -> object:
        self._position += 1
        place = f"{self.ctx.id}{self.path}/{self._position}"
        outside = self.ctx.get_dependency(Outside)
        try:
            outcome = await self._do(step)
        except Exception as error:
            outside.witness(place, told(error))
            raise
        outside.witness(place, outcome)
        return outcome

    async def _do(self, step: Step) -> object:
        match step:
            case Leaf() | Sleep() | External() | Call():
                return [step.kind, await self._call(step)]
            case Detached():
                return ["detached", await self.ctx.detached(flow, step.flow)]
            case Spawn():
                return await self._spawn(step)
            case Fail():
                msg = f"{self.ctx.id} was to fail"
                raise Broken(msg)
            case Facts():
                return await self._facts()
            case Try() | Scope():
                return [step.kind, await (self._try(step) if isinstance(step, Try) else self._scope(step))]
            case _:
                return [step.kind, await self._do_several(step)]

    async def _do_several(self, step: Group | Gather | First | Completed | Nursery | Pause) -> object:
        match step:
            case Pause():
                place = f"{self.ctx.id}{self.path}/{self._position}"
                await self.ctx.get_dependency(Outside).pause(place, step)
                return None
            case Group():
                return await self._group(step)
            case Gather():
                return list(await self.ctx.gather(*map(self._call, step.calls), limit=step.limit))
            case First():
                return await self._first(step)
            case Completed():
                return await self._completed(step)
            case Nursery():
                return await self._nursery(step)
            case _:
                assert_never(step)

    def _inner(self, part: int = 0) -> _Block:
        return _Block(self.ctx, f"{self.path}/{self._position}.{part}")

    def _call(self, call: Startable) -> Any:
        """The builder of a durable call."""
        match call:
            case Sleep(length=length):
                return self.ctx.sleep(seconds(length))
            case External(settled=settled, state=state):
                builder: Any = self.ctx.promise(param={"settled": settled, "state": state})
            case Leaf():
                builder = self.ctx.run(leaf, call).retry(Retry(attempts=_ATTEMPTS))
            case Call(how=how, flow=inner):
                builder = self.ctx.run(flow, inner) if how == "run" else self.ctx.rpc(flow, inner)
            case _:
                assert_never(call)
        if call.timeout is not None:
            builder = builder.timeout(seconds(call.timeout))
        cancelled = None if isinstance(call, External) else call.cancelled
        return builder if cancelled is None else builder.named(f"{CANCELLED}-{cancelled}")

    async def _spawn(self, step: Spawn) -> str:
        future: DurableFuture[Any] = await self._call(step.call).spawn()
        if step.awaited:
            self._futures.append(future)
        return "spawned"

    async def _facts(self) -> str:
        now = await self.ctx.now()
        outside = self.ctx.get_dependency(Outside)
        # They differ from run to run, but not from replay to replay.
        outside.witness(
            f"{self.ctx.id}{self.path}/{self._position} facts",
            [now.isoformat(), self.ctx.random().random(), str(self.ctx.uuid())],
        )
        return "facts"

    async def _try(self, step: Try) -> object:
        try:
            return ["gave", await self._inner().run(step.flow)]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
            return ["failed", told(error)]

    async def _group(self, step: Group) -> object:
        given = _Given(len(step.codes))
        async with self.ctx.task_group(limit=step.limit) as group:
            futures = [group.start(self._call(call)) for call in step.calls]
            for index, code in enumerate(step.codes):
                group.start_soon(given.take, index, self._inner(index + 1), code)
            body = await self._inner().run(step.body)
        return [[future.result() for future in futures], given.values, body]

    async def _nursery(self, step: Nursery) -> object:
        given = _Given(len(step.codes))
        async with create_task_group() as tasks:
            for index, code in enumerate(step.codes):
                tasks.start_soon(given.take, index, self._inner(index), code)
        return given.values

    async def _first(self, step: First) -> object:
        kept = [await self._call(call).spawn() for call in step.kept]
        self._futures += kept
        index, value = await self.ctx.first(*map(self._call, step.calls), *kept)
        return [index, value]

    async def _completed(self, step: Completed) -> object:
        outcomes: list[Any] = []
        async for future in self.ctx.as_completed(*map(self._call, step.calls)):
            error = future.exception()
            outcomes.append([future.id, future.result() if error is None else told(error)])
            if len(outcomes) >= step.taken:
                break
        return outcomes

    async def _scope(self, step: Scope) -> object:
        limit = self.ctx.fail_after if step.fails else self.ctx.move_on_after
        outcome: object = None
        with limit(seconds(step.length)) as scope:
            outcome = await self._inner().run(step.flow)
        if any(isinstance(part, Pause) for part in step.flow.steps):
            # What was cancelled in a plain await is on record with the call that comes next.
            await self.ctx.now()
        return [scope.cancelled_caught, outcome]


class _Given:
    """What the tasks of a group have given."""

    def __init__(self, count: int) -> None:
        self.values: list[Any] = [None] * count

    async def take(self, index: int, block: _Block, code: Flow) -> None:
        """The code of one task."""
        self.values[index] = await block.run(code)


def told(error: BaseException) -> dict[str, Any]:
    """An exception as data, without what differs from run to run."""
    text: dict[str, Any] = {"type": type(error).__name__, "text": str(error)}
    notes = [note for note in getattr(error, "__notes__", ()) if not isinstance(note, RemoteTraceback)]
    if notes:
        text["notes"] = notes
    if isinstance(error, BaseExceptionGroup):
        text["members"] = [told(member) for member in error.exceptions]
    return text
