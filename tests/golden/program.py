"""The program that was asleep when its file was made: one workflow for each feature, each stopped in the middle.

Records are for ever: a function that stands here is not changed any more, since files ask for it. New features get new
functions, and a new file, which the new version makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

import anyio
from attrs import define, field, frozen

from resonate_anyio import Constant, Context, Info, Resonate, durable

DAY: Final = timedelta(days=1)
LONG: Final = timedelta(days=300)


@define
class Journal:
    """Which leaves have begun, by id, and how often. Further attempts of one run are not counted."""

    runs: Counter[str] = field(factory=Counter)
    _attempts: dict[str, int] = field(factory=dict)

    def note(self, info: Info) -> None:
        """Count a leaf that begins."""
        if info.attempt <= self._attempts.get(info.id, info.attempt):
            self.runs[info.id] += 1
        self._attempts[info.id] = info.attempt


class OopsError(Exception):
    """What fails here."""


class Size(Enum):
    """An enum to be recorded."""

    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True)
class Order:
    """A dataclass to be recorded."""

    name: str
    at: datetime
    sizes: tuple[Size, ...] = ()


# Leaves


async def step(info: Info, value: str, seconds: float = 0) -> str:
    """Give the value back after a while."""
    info.get_dependency(Journal).note(info)
    await anyio.sleep(seconds)
    return f"{value}!"


async def fail(info: Info, value: str, seconds: float = 0) -> str:
    """Fail after a while."""
    info.get_dependency(Journal).note(info)
    await anyio.sleep(seconds)
    raise OopsError(value)


def blocking(info: Info, value: str) -> str:
    """Run in a thread."""
    info.get_dependency(Journal).note(info)
    return f"{value}, from a thread"


async def enlarge(info: Info, order: Order) -> Order:
    """Take and give a dataclass."""
    info.get_dependency(Journal).note(info)
    return Order(order.name, order.at, (*order.sizes, Size.LARGE))


@durable(retry=Constant(delay=40, attempts=3))
async def third_time(info: Info) -> str:
    """Succeed at the third attempt."""
    info.get_dependency(Journal).note(info)
    if info.attempt < 3:
        raise OopsError(str(info.attempt))
    return "third time"


@durable(version=2)
async def versioned(info: Info, value: str) -> str:
    """A leaf that has a version."""
    info.get_dependency(Journal).note(info)
    return f"{value} by version 2"


async def total(info: Info, rows: list[int]) -> int:
    """Take many numbers. Since 0.2.0, the digest of such arguments is that of a sample."""
    info.get_dependency(Journal).note(info)
    return sum(rows)


# Workflows


async def sequence(ctx: Context) -> list[str]:
    """Steps, a long sleep, and steps."""
    before = [await ctx.run(step, "one"), await ctx.run(blocking, "two"), await ctx.run(versioned, "three")]
    await ctx.sleep(DAY)
    return [*before, await ctx.run(step, "four")]


async def in_flight(ctx: Context) -> str:
    """A leaf that runs when the file is made."""
    await ctx.run(step, "before")
    return await ctx.run(step, "long", 100)


async def values(ctx: Context, order: Order) -> Order:
    """Types in arguments and results."""
    larger = await ctx.run(enlarge, order)
    await ctx.sleep(DAY)
    return await ctx.run(enlarge, larger)


async def spawned(ctx: Context) -> list[str]:
    """Futures, of which some have ended."""
    futures = [await ctx.run(step, name, seconds).spawn() for name, seconds in (("a", 1), ("b", 200))]
    nap = await ctx.sleep(DAY).spawn()
    found = [await future for future in futures]
    await nap
    return [*found, await ctx.run(step, "c")]


async def grouped(ctx: Context) -> list[object]:
    """A task group of every kind of call."""
    async with ctx.task_group(limit=3) as tg:
        futures = [
            tg.run(step, "quick"),
            tg.sleep(DAY),
            tg.start(ctx.rpc(nap, "there")),
            tg.promise(),
            tg.run(step, "waits for its turn"),
        ]
        body = await ctx.run(step, "body")
    return [*(future.result() for future in futures), body]


async def compensating(ctx: Context) -> list[str]:
    """A group that failed, and a cleanup that was done; both before the file is made."""
    found: list[str] = []
    try:
        async with ctx.task_group() as tg:
            tg.run(step, "cut off", 100)
            tg.sleep(DAY)
            tg.run(fail, "no", 4)
            await ctx.sleep(100)
    except* OopsError:
        found.append(await ctx.run(step, "cleanup"))
    await ctx.sleep(DAY)
    return [*found, await ctx.run(step, "after")]


async def shielded(ctx: Context) -> str:
    """A compensation under a shield that sleeps when the file is made."""
    try:
        async with ctx.task_group() as tg:
            tg.start_soon(_undone_later, ctx)
            tg.run(fail, "no", 2)
    except* OopsError:
        pass
    return await ctx.run(step, "done")


async def _undone_later(ctx: Context) -> None:
    try:
        await ctx.sleep(DAY)
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.run(step, "undoing")
            await ctx.sleep(timedelta(hours=1))
            await ctx.run(step, "undone")


async def lanes(ctx: Context) -> list[str]:
    """Plain code in a durable group."""
    found: list[str] = []
    async with ctx.task_group() as tg:
        for name in ("x", "y"):
            tg.start_soon(_twice, ctx, name, found)
    return [*sorted(found), await ctx.run(step, "joined")]


async def nursery(ctx: Context) -> list[str]:
    """Plain code in a plain group, told apart by its first calls."""
    found: list[str] = []
    async with anyio.create_task_group() as tg:
        for name in ("p", "q", "r"):
            tg.start_soon(_twice, ctx, name, found)
    return [*sorted(found), await ctx.run(step, "joined")]


async def _twice(ctx: Context, name: str, found: list[str]) -> None:
    await ctx.run(step, name)
    await ctx.sleep(DAY)
    found.append(await ctx.run(step, f"{name} again"))


async def gathered(ctx: Context) -> list[object]:
    """`gather` and `map` with a limit, one after the other."""
    mapped = await ctx.map(step, ["m", "n", "o"], limit=2)
    gathered = await ctx.gather(ctx.run(step, "g"), ctx.sleep(DAY), ctx.run(step, "h"), limit=1)
    return [*mapped, *gathered]


async def chosen(ctx: Context) -> list[object]:
    """Choices that were made, and one that is open."""
    index, value = await ctx.first(ctx.run(step, "winner", 1), ctx.sleep(DAY))
    ended = [await future async for future in ctx.as_completed(ctx.run(step, "slow", 3), ctx.run(step, "fast", 1))]
    late = [future.id async for future in ctx.as_completed(ctx.sleep(2), ctx.sleep(DAY))]
    return [index, value, ended, len(late), await ctx.first(ctx.run(step, "again"), ctx.sleep(LONG))]


async def facts(ctx: Context) -> bool:
    """Time and chance, which have to be the same before and after."""
    first, chance, id = await ctx.now(), ctx.random().randint(1, 10**9), ctx.uuid()
    seen = await ctx.run(step, f"{first.isoformat()} {chance} {id}")
    await ctx.sleep(DAY)
    return seen == f"{first.isoformat()} {chance} {id}!"


async def scopes(ctx: Context) -> list[object]:
    """Durable scopes: one that has expired, one inside of which it sleeps, one that will expire."""
    with ctx.move_on_after(5) as expired:
        await ctx.sleep(DAY)
    with ctx.fail_after(2 * DAY):
        await ctx.run(step, "inside")
        await ctx.sleep(DAY)
        with ctx.move_on_after(600) as later:
            await ctx.sleep(DAY)
    return [expired.cancelled_caught, later.cancelled_caught, await ctx.run(step, "outside")]


async def plain_scope(ctx: Context) -> str:
    """A plain scope that has expired."""
    with anyio.move_on_after(5):
        await ctx.sleep(DAY)
    await ctx.run(step, "went on")
    await ctx.sleep(DAY)
    return await ctx.run(step, "still")


async def people(ctx: Context) -> list[object]:
    """Promises: one that was settled before the file was made, one that is settled later, one that nobody settles."""
    settled = await ctx.promise().returns(int)
    open_ = await ctx.promise().named("approval").returns(str)
    try:
        await ctx.promise().timeout(600)
    except TimeoutError:
        return [settled, open_, await ctx.run(step, "nobody")]
    return []


async def nap(ctx: Context, value: str) -> str:
    """What others call by `rpc`."""
    await ctx.run(step, f"{value} before")
    await ctx.sleep(DAY)
    return await ctx.run(step, f"{value} after")


async def doomed(ctx: Context) -> str:
    """A remote call that fails later."""
    await ctx.sleep(DAY)
    return await ctx.run(fail, "remotely")


async def remote(ctx: Context) -> list[str]:
    """Remote calls: one that has ended, one that sleeps, one that fails; and a detached one."""
    found = [await ctx.rpc(quick, "remote"), await ctx.detached(nap, "alone")]
    pending = await ctx.rpc(doomed).spawn()
    found.append(await ctx.rpc(nap, "elsewhere").timeout(LONG))
    try:
        await pending
    except OopsError as error:
        found.append(str(error))
    return [value for value in found if "." not in value]


async def quick(ctx: Context, value: str) -> str:
    """A remote call that is over at once."""
    return await ctx.run(step, value)


async def dig(ctx: Context, depth: int) -> int:
    """Recursion until ids are hashed."""
    if depth == 0:
        await ctx.run(step, "bottom")
        await ctx.sleep(DAY)
        return 0
    below = await ctx.run(dig, depth - 1)
    await ctx.run(step, str(depth))
    return below + 1


async def patient(ctx: Context) -> str:
    """A leaf that is between two attempts when the file is made."""
    return await ctx.run(third_time)


async def failing(ctx: Context) -> str:
    """It fails in the end."""
    await ctx.sleep(DAY)
    return await ctx.run(fail, "in the end")


async def expiring(ctx: Context) -> str:
    """Its deadline passes in its sleep."""
    await ctx.run(step, "in time")
    await ctx.sleep(LONG)
    return "never"


fickle_calls: Final[list[Callable[..., Awaitable[str]]]] = [step]
"""What `fickle` calls; the maker changes it, so that a replay finds something else on record."""


async def fickle(ctx: Context) -> str:
    """It is halted when the file is made, and resumed with the old code."""
    found: str = await ctx.run(fickle_calls[0], "same").named("call")
    await ctx.sleep(30)
    return found


async def bulky(ctx: Context) -> list[int]:
    """Large arguments, before and after a sleep, and in plain tasks."""
    found = [await ctx.run(total, [1] * 5_000)]

    async def lane(number: int) -> None:
        await ctx.run(total, [number] * 5_000)
        await ctx.sleep(DAY)
        found.append(await ctx.run(total, [number] * 6_000))

    async with anyio.create_task_group() as tg:
        for number in (2, 3):
            tg.start_soon(lane, number)
    return sorted(found)


async def tick(ctx: Context) -> str:
    """What the schedule fires."""
    return await ctx.run(step, "tick")


# Calls: what was started, and what each comes to


@frozen
class Expected:
    """A root, and how it has to end.

    Attributes:
        function: its function.
        args: its arguments.
        value: what it returns, or
        error: the name of the error's type.
        timeout: its own deadline, or None.
        since: the first file that it is in.
    """

    function: Callable[..., Any]
    value: object = None
    args: tuple[object, ...] = ()
    error: str | None = None
    timeout: timedelta | None = None
    since: str = "0.1.0"


_ORDER: Final = Order("saddle", datetime(2030, 1, 1, tzinfo=UTC), (Size.SMALL,))

ROOTS: Final[Mapping[str, Expected]] = {
    "sequence": Expected(sequence, ["one!", "two, from a thread", "three by version 2", "four!"]),
    "in_flight": Expected(in_flight, "long!"),
    "values": Expected(values, Order(_ORDER.name, _ORDER.at, (Size.SMALL, Size.LARGE, Size.LARGE)), args=(_ORDER,)),
    "spawned": Expected(spawned, ["a!", "b!", "c!"]),
    "grouped": Expected(grouped, ["quick!", None, "there after!", "answer", "waits for its turn!", "body!"]),
    "compensating": Expected(compensating, ["cleanup!", "after!"]),
    "shielded": Expected(shielded, "done!"),
    "lanes": Expected(lanes, ["x again!", "y again!", "joined!"]),
    "nursery": Expected(nursery, ["p again!", "q again!", "r again!", "joined!"]),
    "gathered": Expected(gathered, ["m!", "n!", "o!", "g!", None, "h!"]),
    "chosen": Expected(chosen, [0, "winner!", ["fast!", "slow!"], 2, [0, "again!"]]),
    "facts": Expected(facts, value=True),
    "scopes": Expected(scopes, [True, True, "outside!"]),
    "plain_scope": Expected(plain_scope, "still!"),
    "people": Expected(people, [7, "yes", "nobody!"]),
    "remote": Expected(remote, ["remote!", "elsewhere after!", "remotely"]),
    "dig": Expected(dig, 35, args=(35,)),
    "patient": Expected(patient, "third time"),
    "failing": Expected(failing, error="OopsError"),
    "expiring": Expected(expiring, error="DurableTimeoutError", timeout=DAY),
    "fickle": Expected(fickle, "same!"),
    "bulky": Expected(bulky, [5_000, 12_000, 18_000], since="0.2.0"),
}

OUTSIDE: Final[Mapping[str, object]] = {"people.approval": "yes", "grouped.promise-1": "answer"}
"""The promises that are settled from outside once the file has been opened again."""

SCHEDULE: Final = "hourly"
ENDED_PROMISE: Final = "ended_promise"
OPEN_PROMISE: Final = "open_promise"

_REGISTERED: Final[tuple[Callable[..., Any], ...]] = (
    *{expected.function: None for expected in ROOTS.values()},
    nap,
    doomed,
    quick,
    tick,
)


def program(resonate: Resonate, journal: Journal) -> Resonate:
    """Register all of it."""
    resonate.with_dependency(journal)
    for function in _REGISTERED:
        resonate.register(function)
    return resonate
