"""The program of quickstart_countdown.py on trio: the same durable functions, and the rest of the code is trio's."""

from __future__ import annotations

import trio

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Network


async def say(text: str) -> None:
    """Print a line. This is a leaf; it could use trio directly."""
    print(text)


async def countdown(ctx: Context, start: int, pause: float) -> str:
    """Count down. This is a workflow; it runs on both backends without a change."""
    for number in range(start, 0, -1):
        await ctx.run(say, f"{number} ...")
        await ctx.sleep(pause)
    await ctx.run(say, "Lift-off!")
    return f"counted down from {start}"


async def main(network: Network | None = None) -> list[str]:
    """Run two countdowns at the same time, in a plain nursery of trio."""
    resonate = Resonate(network=network)
    resonate.register(countdown)
    results: list[str] = []

    async def launch(start: int) -> None:
        results.append(await resonate.run(f"countdown-from-{start}", countdown, start, pause=0.5))

    async with resonate, trio.open_nursery() as nursery:
        nursery.start_soon(launch, 3)
        nursery.start_soon(launch, 2)
    print(*results, sep="\n")
    return results


if __name__ == "__main__":
    trio.run(main)
