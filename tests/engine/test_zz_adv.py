from __future__ import annotations
import anyio, pytest
from resonate_anyio import *
from resonate_anyio._protocol import Response
from .harness import *
async def double(x:int)->int: return x*2
@pytest.mark.parametrize("status",[500,401,403])
@pytest.mark.parametrize("kind",["promise.create","promise.settle","task.fulfill","task.fence","promise.register_listener"])
async def test_500(resonate: Resonate, wire: Wire, status, kind) -> None:
    "x"
    n=[]
    orig=wire.request
    caught=[]
    async def request(c, r):
        if r.kind==kind and not n:
            n.append(1); return Response(status=status,error="boom")
        return await orig(c,r)
    async def wf(ctx: Context)->int:
        try:
            return await ctx.run(double,1)+await ctx.rpc("double",2)
        except Exception as e:
            caught.append(e); raise
    resonate.register(wf); resonate.register(double)
    wire.__class__.request, keep = staticmethod(request), wire.__class__.request
    try:
      async with resonate:
        try:
            r = await resonate.run("w",wf)
        except ResonateError as e:
            print("told", repr(e))
            with anyio.fail_after(100): r = await (await resonate.get("w"))
        assert r==6
    finally: wire.__class__.request=keep
    assert caught==[]
async def test_depth(resonate: Resonate)->None:
    "x"
    async def down(ctx: Context, n: int) -> int:
        return 0 if n == 0 else 1 + await ctx.run(down, n - 1).named("n")
    resonate.register(down)
    async with resonate:
        for n in (50,60,70,80,90,100,150):
            try: assert n == await resonate.run(f"w{n}", down, n)
            except RecursionError as e: print("recursion at",n); break
async def test_many(resonate: Resonate)->None:
    "x"
    import time
    async def wf(ctx: Context, n: int) -> int:
        fs=[await ctx.run(double,i).spawn() for i in range(n)]
        return sum([await f for f in fs])
    resonate.register(wf)
    async with resonate:
        for n in (500,1000,2000,4000):
            t=time.time(); await resonate.run(f"w{n}", wf, n); print(n, time.time()-t)
