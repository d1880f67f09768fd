"""A workflow that waits for a person: `ctx.promise` makes a promise that is settled from outside.

Days may pass, and the process may be restarted meanwhile: the promise and its answer are recorded.
"""

from __future__ import annotations

from datetime import timedelta

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Network


async def ask(promise_id: str, question: str) -> None:
    """Tell the person. A real program would send a mail with a link that contains the id."""
    print(f"to the manager: {question} (answer {promise_id})")


async def expense(ctx: Context, employee: str, amount: float, patience: timedelta) -> str:
    """Ask the manager about a large expense, and wait for the answer until a deadline."""
    if amount <= 100:
        return f"{employee} gets {amount:.2f}"
    answer = await ctx.promise().timeout(patience).returns(bool).spawn()
    await ctx.run(ask, answer.id, f"{employee} asks for {amount:.2f}. Is that all right?")
    try:
        approved = await answer
    except TimeoutError:
        return f"{employee} gets nothing: no answer"
    return f"{employee} gets {amount:.2f}" if approved else f"{employee} gets nothing: refused"


async def main(network: Network | None = None) -> list[str]:
    """Run one small expense and three large ones. The manager approves one, refuses one and forgets one."""
    resonate = Resonate(network=network)
    resonate.register(expense)
    week, moment = timedelta(days=7), timedelta(seconds=3)

    async with resonate:
        handles = [
            await resonate.run("expense-1", expense, "Ida", 12.5, week).spawn(),
            await resonate.run("expense-2", expense, "Ada", 640.0, week).spawn(),
            await resonate.run("expense-3", expense, "Bob", 9999.0, week).spawn(),
            await resonate.run("expense-4", expense, "Cyd", 150.0, moment).spawn(),
        ]
        # The manager answers later, in this process or in another one that uses the same promises.
        await anyio.sleep(1)
        await resonate.promises.resolve("expense-2.promise-1", value=True)
        await resonate.promises.resolve("expense-3.promise-1", value=False)

        results = [await handle for handle in handles]
    print(*results, sep="\n")
    return results


if __name__ == "__main__":
    anyio.run(main)
