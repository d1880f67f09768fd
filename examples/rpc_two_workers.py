"""A call from one worker to another: two `Resonate` objects, as in two processes, that share one network.

`ctx.run` calls a function here; `ctx.rpc` calls one by name wherever it is registered, on any worker of its target.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from resonate_anyio import Context, Info, Resonate
from resonate_anyio.abc import Network
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore


@dataclass(frozen=True)
class Photo:
    """A value of a call. It is recorded as JSON and read back as the type of the annotation."""

    name: str
    width: int


async def shrink(info: Info, photo: Photo, width: int) -> Photo:
    """Shrink a photo. This runs in the group `images` only. `Info` describes its call."""
    print(f"[images] {info.id}: shrinking {photo.name} for {info.parent_id}")
    return Photo(f"{photo.name}@{width}", min(photo.width, width))


async def publish(ctx: Context, names: list[str]) -> list[Photo]:
    """Publish photos. This runs in the group `web`. It names the other group's function and the type of its result."""
    print(f"[web] publishing {len(names)} photos")
    calls = [
        await ctx.rpc("shrink", Photo(name, 4000), width=800).target("images").returns(Photo).spawn() for name in names
    ]
    return [await call for call in calls]


async def main(network: Network | None = None) -> list[Photo]:
    """Start both workers and publish three photos."""
    network = network or LocalNetwork(MemoryStore())
    web = Resonate(network=network, group="web")
    web.register(publish)
    images = Resonate(network=network, group="images")
    images.register(shrink)

    async with images, web:
        photos = await web.run("album-7", publish, ["cat", "dog", "fox"])
    for photo in photos:
        print(f"{photo.name}: {photo.width} pixels wide")
    return photos


if __name__ == "__main__":
    anyio.run(main)
