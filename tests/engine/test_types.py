"""Values of Pydantic and numpy through the engine: arguments, results, errors' data, promises; live and replayed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel, SecretStr

from resonate_anyio import Context, EncodeError, Resonate

from .harness import World, settles


class Order(BaseModel):
    id: int
    share: Fraction | None = None
    parent: Order | None = None


class Login(BaseModel):
    password: SecretStr


class Refused(Exception):
    pass


ORDER = Order(id=1, parent=Order(id=2))


async def test_live_and_replayed(world: World) -> None:
    """With an annotation the types come back; without one it is plain JSON; the same live and on a replay."""
    seen: list[list[Any]] = []

    async def annotated(order: Order) -> Order:
        return order

    async def plain(order):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - the case at hand
        return [order, np.float32(0.5), 1j]

    async def array() -> NDArray[np.float32]:
        return np.array([[1.5, np.nan]], dtype=np.float32)

    async def fail() -> None:
        raise Refused(ORDER, np.int64(3))

    async def last() -> None:
        pass

    async def flow(ctx: Context) -> None:
        found: list[Any] = [await ctx.run(annotated, ORDER), await ctx.run(plain, ORDER)]
        seen.append(found)
        items = await ctx.run(array)
        found += [items.dtype.name, items.shape, items.tobytes()]
        try:
            await ctx.run(fail)
        except Refused as exc:
            found.append(exc.args)
        await ctx.run(last)

    process = world.process(flow)
    process.kill_at(settles("w.last-1"), answered=False)
    await world.run_until_killed(process, "w", flow)
    async with world.process(flow) as process:
        await (await process.resonate.get("w"))
    data = ORDER.model_dump(mode="json")
    expected = [ORDER, [data, 0.5, [0.0, 1.0]], "float32", (1, 2), np.array([1.5, np.nan], dtype="f4").tobytes()]
    assert [[*expected, (data, 3)]] * 2 == seen


async def test_arguments_and_promises(resonate: Resonate) -> None:
    """Roots, remote calls and promises take and give them by their annotations; secrets are refused at once."""

    async def total(order: Order, values: NDArray[np.int64], *, share: Fraction) -> Order:
        return Order(id=order.id + int(values.sum()), share=share)

    async def flow(ctx: Context) -> Order:
        order = await ctx.promise().named("order").returns(Order)
        return await ctx.rpc(total, order, np.array([1, 2]), share=Fraction(1, 3))

    resonate.register(total)
    resonate.register(flow)
    async with resonate:
        handle = await resonate.run("w", flow).spawn()
        while (promise := await _found(resonate, "w.order")) is None:
            pass
        await resonate.promises.resolve(promise, ORDER)
        assert Order(id=4, share=Fraction(1, 3)) == await handle
        with pytest.raises(EncodeError, match=r"SecretStr is not recorded at \$\.password"):
            await resonate.rpc("v", "login", Login(password=SecretStr("x")))
        with pytest.raises(EncodeError, match="SecretStr is not recorded"):
            await resonate.promises.create("p", 4_000_000_000_000, SecretStr("x"))


async def _found(resonate: Resonate, dotted_id: str) -> str | None:
    ids = [promise.id async for promise in resonate.promises.search()]
    return next((id for id in ids if id.replace(":", ".") == dotted_id), None)
