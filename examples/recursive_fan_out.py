"""A workflow that calls itself: a merge sort in which each half is a durable call.

The ids show the call graph: `sort-1.merge_sort-2.merge_sort-1` is the first half of the second half.
"""

from __future__ import annotations

from heapq import merge

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Network


def sort_small(numbers: list[int]) -> list[int]:
    """Sort a short list. This is a leaf without `async`, so it runs in a worker thread, and may block it."""
    return sorted(numbers)


async def merge_sort(ctx: Context, numbers: list[int]) -> list[int]:
    """Split, sort both halves at the same time, and merge. A computation without side effects needs no leaf."""
    if len(numbers) <= 4:
        return await ctx.run(sort_small, numbers)
    middle = len(numbers) // 2
    left = await ctx.run(merge_sort, numbers[:middle]).spawn()
    right = await ctx.run(merge_sort, numbers[middle:]).spawn()
    return list(merge(await left, await right))


async def main(network: Network | None = None) -> list[int]:
    """Sort, then print the records."""
    resonate = Resonate(network=network)
    resonate.register(merge_sort)

    async with resonate:
        result = await resonate.run("sort-1", merge_sort, [7, 3, 15, 1, 12, 9, 4, 14, 2, 11, 8, 5, 13, 6, 10, 0])
        print(result)
        async for promise in resonate.promises.search(tags={"resonate:origin": "sort-1"}):
            print(f"{'    ' * promise.id.count('.')}{promise.id} -> {promise.value}")
    return result


if __name__ == "__main__":
    anyio.run(main)
