"""Leaves that fail at times: a retry policy says how often, how soon and after which errors they run again."""

from __future__ import annotations

import anyio

from resonate_anyio import Constant, Context, Info, Resonate, Retry, durable
from resonate_anyio.abc import Network


class RateLimitedError(Exception):
    """An error that may not happen at the next attempt."""


class NoSuchCityError(Exception):
    """An error that would happen at every attempt."""


# It waits for 1, 2, 4 ... seconds, each shortened by up to a tenth, and only after this type of error.
@durable(retry=Retry(attempts=5, on=RateLimitedError))
async def temperature(info: Info, city: str) -> float:
    """Ask for the weather. This is a leaf with metadata: `info.attempt` counts from 1."""
    print(f"{city}: attempt {info.attempt}")
    if city == "Atlantis":
        raise NoSuchCityError(city)
    if info.attempt < 3:
        raise RateLimitedError(city)
    return 21.5


async def weather(ctx: Context, city: str) -> str:
    """Report the weather. Only the last outcome of a leaf is recorded, so this workflow sees one call."""
    try:
        return f"{city}: {await ctx.run(temperature, city)} degrees"
    except NoSuchCityError as error:
        return f"{error}: never heard of it"


async def impatient(ctx: Context, city: str) -> str:
    """Report the weather, with a policy for this call, and with a deadline for all attempts together."""
    call = ctx.run(temperature, city).retry(Constant(delay=2)).timeout(3)
    try:
        return f"{city}: {await call} degrees"
    except TimeoutError:
        return f"{city}: too slow"


async def main(network: Network | None = None) -> list[str]:
    """Ask for three cities: one succeeds at the third attempt, one fails at the first, and one runs out of time."""
    resonate = Resonate(network=network)
    resonate.register(weather)
    resonate.register(impatient)

    async with resonate:
        results = [
            await resonate.run("weather-1", weather, "Lisbon"),
            await resonate.run("weather-2", weather, "Atlantis"),
            await resonate.run("weather-3", impatient, "Reykjavik"),
        ]
    print(*results, sep="\n")
    return results


if __name__ == "__main__":
    anyio.run(main)
