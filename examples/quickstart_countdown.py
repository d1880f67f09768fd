"""The smallest durable program: a countdown that would survive a restart between any two of its steps."""

from __future__ import annotations

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Network


async def say(text: str) -> None:
    """Print a line. This is a leaf: ordinary code. After it has returned, it is not called again for the same step."""
    print(text)


async def countdown(ctx: Context, start: int, pause: float) -> str:
    """Count down. This is a workflow: its first parameter is a `Context`, which calls other functions durably."""
    for number in range(start, 0, -1):
        await ctx.run(say, f"{number} ...")
        await ctx.sleep(pause)
    await ctx.run(say, "Lift-off!")
    return f"counted down from {start}"


async def main(network: Network | None = None) -> str:
    """Run a countdown. `Resonate()` keeps promises in memory; `Resonate.local("countdown.db")` keeps them in a file."""
    resonate = Resonate(network=network)
    resonate.register(countdown)

    async with resonate:
        # The id names this one countdown. A call with the same id, now or after a restart, joins it.
        result = await resonate.run("countdown-1", countdown, 3, pause=0.5)
    print(result)
    return result


if __name__ == "__main__":
    anyio.run(main)
