"""Steps that run at the same time: `spawn()` starts a call and returns a future, `await future` returns its result."""

from __future__ import annotations

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Network

PRICES = {"flight": 420.0, "hotel": 310.0, "car": 95.0}


async def quote(what: str, delay: float) -> float:
    """Ask a slow service for a price."""
    await anyio.sleep(delay)
    print(f"{what}: {PRICES[what]:.2f}")
    return PRICES[what]


async def plan_trip(ctx: Context) -> float:
    """Ask all three at once. This takes as long as the slowest; a crash loses only answers that are still missing."""
    flight = await ctx.run(quote, "flight", 0.9).spawn()
    hotel = await ctx.run(quote, "hotel", 0.6).spawn()
    car = await ctx.run(quote, "car", 0.3).spawn()
    return await flight + await hotel + await car


async def main(network: Network | None = None) -> float:
    """Plan a trip, and print its price and the time that the plan took."""
    resonate = Resonate(network=network)
    resonate.register(plan_trip)

    async with resonate:
        started = anyio.current_time()
        total = await resonate.run("trip-to-lisbon", plan_trip)
        print(f"{total:.2f} in all, after {anyio.current_time() - started:.1f} seconds instead of 1.8")
    return total


if __name__ == "__main__":
    anyio.run(main)
