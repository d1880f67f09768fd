"""The table of `docs/records.md` has everything that this package adds to the protocol, and nothing else.

What the source can write is found in its syntax trees; what programs do write is found in a store.
"""

from __future__ import annotations

import ast
import json
import lzma
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from resonate_anyio import Context, Resonate
from resonate_anyio._codec import Codec
from resonate_anyio._finished import as_call
from resonate_anyio._protocol import Promise, PromiseState, Value
from resonate_anyio.abc import Clock
from resonate_anyio.stores import MemoryStore
from resonate_anyio.stores._schema import COLUMNS, INDEXES
from tests.chosen import native, network_on
from tests.crash.corpus import CORPUS
from tests.crash.lives import Platform, live
from tests.crash.states import EMPTY, State
from tests.engine.harness import World

from .pages import DOCS, TOP, table

PACKAGE: Final = TOP / "src" / "resonate_anyio"
TRANSCRIPTS: Final = TOP / "tests" / "transcripts"

_ROWS: Final = table((DOCS / "records.md").read_text(encoding="utf-8").partition("## The table")[2])
_MEMBER: Final = re.compile(r'"(\w+)":')
_PAYLOADS: Final = {"param", "value", "form"}


def _literals(*kinds: str) -> set[str]:
    """What stands in backticks in the first column, in the rows of these kinds."""
    return {text for row in _ROWS if row["kind"] in kinds for text in re.findall(r"`([^`]+)`", row["name"])}


def _of_table(*kinds: str) -> list[set[str]]:
    """The members of the JSON objects of these kinds, one set a row."""
    return [set(re.findall(r"`(\w+)`", row["name"])) for row in _ROWS if row["kind"] in kinds]


# What is in the source


@cache
def _trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def _nodes() -> Iterator[ast.AST]:
    for tree in _trees().values():
        yield from ast.walk(tree)


@cache
def _texts() -> frozenset[str]:
    """Every string of the source, parts of formatted ones and names of arguments included."""
    constants = {node.value for node in _nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(constants | {node.arg for node in _nodes() if isinstance(node, ast.keyword) and node.arg})


def _matching(pattern: str) -> set[str]:
    return {text for text in _texts() if re.fullmatch(pattern, text)}


def _key(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _objects(tree: ast.Module, *, values: bool) -> Iterator[tuple[ast.Dict, str | None]]:
    """The dicts that become JSON, with the name of each if it has one.

    They are encoded at once, annotated as JSON, or, in the modules for values, returned.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="encode"), args=[ast.Dict() as found]):
                yield found, None
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=ast.Dict() as found):
                if ast.unparse(kind) in {"dict[str, JSON]", "dict[str, object]"}:
                    yield found, name
            case ast.Return(value=ast.Dict() as found) if values:
                yield found, None
            case _:
                pass


def _members() -> set[str]:
    """The members of those objects, also those that are added afterwards."""
    found: set[str | None] = set()
    for path, tree in _trees().items():
        if "server" in path.parts:
            # What is made there is for browsers and event loops.
            continue
        objects = list(_objects(tree, values="_codec" in path.parts))
        names = {name for _, name in objects}
        found |= {_key(key) for each, _ in objects for key in each.keys}
        for node in ast.walk(tree):
            match node:
                case ast.Subscript(value=ast.Name(id=name), slice=key, ctx=ast.Store()) if name in names:
                    found.add(_key(key))
                case _:
                    pass
    return {key for key in found if key is not None}


def _types_of_errors() -> set[str]:
    """What `__type` may be."""
    found: set[str] = set()
    for node in _nodes():
        if isinstance(node, ast.Dict):
            values = [value for key, value in zip(node.keys, node.values, strict=True) if _key(key) == "__type"]
            found |= {text for value in values for each in ast.walk(value) if (text := _constant(each)) is not None}
    return found


def _constant(node: ast.AST) -> str | None:
    return _key(node) if isinstance(node, ast.expr) else None


def _reasons() -> set[str]:
    """What `by` may be: the constants beside the class `Reason`."""
    [tree] = [tree for tree in _trees().values() if any(_is_class(node, "Reason") for node in tree.body)]
    return {
        text
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and (text := _key(node.value)) is not None
        and ast.unparse(node.annotation) == "Final"
    }


def _is_class(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


def _row(kind: str, name: str) -> str:
    [row] = [row for row in _ROWS if row["kind"] == kind and name in row["name"]]
    return " ".join(row.values())


def test_tags_and_headers() -> None:
    """The tags and headers of the source are those of the table."""
    assert _matching(r"resonate-anyio:[a-z-]+") == _literals("tag", "header")


def test_segments() -> None:
    """The segments with a tilde of the source are those of the table."""
    assert _matching(r"~[a-z]+-") == {
        found[0] for text in _literals("segment") if (found := re.match(r"~[a-z]+-", text))
    }


def test_members_of_payloads() -> None:
    """Each member of JSON that the source makes is in the table, and each of the table is in the source."""
    listed = set().union(*_of_table(*_PAYLOADS)) - {"__INF__", "__NEG_INF__"}
    assert set() == _members() - listed
    assert set() == listed - _texts()


def test_shapes_show_their_members() -> None:
    """The example of a payload has the members that its row is named by, and no others."""
    # The reason inside of a choice has a row of its own.
    shapes = {
        row["name"]: row["shape, example"].replace('{"by": "scope"}', "") for row in _ROWS if row["kind"] in _PAYLOADS
    }
    shown = {name: members for name, shape in shapes.items() if (members := set(_MEMBER.findall(shape)))}
    assert {name: set(re.findall(r"`(\w+)`", name)) for name in shown} == shown


def test_types_of_errors() -> None:
    """The values of `__type` in the source are those of the table."""
    row = _row("value", "`__type`")
    listed = {*re.findall(r'"__type": "(\w+)"', row), *re.findall(r"`(\w+)` for an exception group", row)}
    assert _types_of_errors() == listed


def test_scalars_that_stand_for_others() -> None:
    """The strings of the source that stand for a number are those of the table."""
    assert _matching(r"__[A-Z]+(_[A-Z]+)*__") == {text for text in _literals("form") if text.startswith("__")}


def test_reasons() -> None:
    """The reasons of cancellations in the source are those of the table."""
    row = _row("value", "`by`")
    listed = re.search(r"`by` is (.*?) \|?(?=0\.1\.0)", row)
    assert listed is not None
    assert _reasons() == set(re.findall(r"`(\w+)`", listed[1]))


def test_facts() -> None:
    """The facts of the source are those of the table."""
    rows = " ".join(_row("param", name) for name in ("`fact`, `value`", "`fact`, `cancelled`", "`fact` alone"))
    assert _facts() == set(re.findall(r"\bctx\.\w+", rows))


def _facts() -> set[str]:
    found: set[str] = set()
    for node in _nodes():
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="plan"), args=[*_, ast.Constant(value=str(fact))]
            ):
                assert "Fact" in name or "Choice" in name
                found.add(fact)
            case ast.Dict(keys=[ast.Constant(value="fact")], values=[ast.Constant(value=str(fact))]):
                found.add(fact)
            case _:
                pass
    return found


def test_fields() -> None:
    """The fields of requests and answers that no real server has sent or taken are those of the table."""
    assert _fields() - _recorded() == _literals("field")


def _fields() -> set[str]:
    """The names in the modules that know how messages look as JSON."""
    found: set[str] = set()
    for path, tree in _trees().items():
        if path.name.startswith("_wire"):
            for node in ast.walk(tree):
                match node:
                    case ast.Dict(keys=keys):
                        found |= {key for each in keys if (key := _key(each)) is not None}
                    case ast.Call(func=ast.Name(id="required" | "optional" | "defaulted"), args=[_, name, *_]):
                        found |= {key} if (key := _key(name)) is not None else set()
                    case ast.Call(func=ast.Name(id="_present"), keywords=keywords):
                        found |= {each.arg for each in keywords if each.arg is not None}
                    case _:
                        pass
    return found


@cache
def _recorded() -> frozenset[str]:
    """The names of fields and the kinds of messages in the exchanges with real servers."""
    name, kind = re.compile(r'"([\w:]+)\\?":'), re.compile(r'"kind\\?": ?\\?"([\w.]+)')
    found: set[str] = set()
    for path in TRANSCRIPTS.glob("*/*.jsonl.xz"):
        text = lzma.decompress(path.read_bytes()).decode()
        found.update(name.findall(text), kind.findall(text))
    return frozenset(found)


def test_names_and_files() -> None:
    """What the table says of names and of the file is in the source; what a file is completed with is in the table."""
    for text in _literals("name", "file"):
        parts = [text] if any(text in each for each in _texts()) else re.split(r"\{[^{}]*\}|\.(?=\w+$)", text)
        missing = [part for part in parts if len(part) > 1 and not any(part in each for each in _texts())]
        assert [] == missing, text
    added = {f"{each}.{column}" for each, columns in COLUMNS.items() for column in columns}
    added |= set(re.findall(r"INDEX IF NOT EXISTS (\w+)", INDEXES))
    assert set() == added - _literals("file")


def test_versions() -> None:
    """Each row names the version that has written it first, a released one or the next."""
    assert [] == [row["name"] for row in _ROWS if not re.match(r"(read since )?0\.[12]\.0\b", row["since"])]


# What programs write


async def every_kind(ctx: Context) -> str:
    """Write what the corpus does not."""
    future = await ctx.sleep(50).spawn()
    await future.cancel()
    early = await ctx.sleep(50).spawn()
    with ctx.move_on_after(1):
        await early
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ctx.sleep(1)
    with suppress(LookupError):
        await ctx.run(fail)
    with ctx.move_on_after(100):
        await ctx.promise().named("ahead")
    await ctx.detached("step", key=1).target("elsewhere")
    return await ctx.run(deeper)


def fail() -> None:
    """Fail with an error that has a cause."""
    msg = "no"
    raise LookupError(msg) from ValueError(msg)


async def deeper(ctx: Context) -> str:
    """Make a promise whose id is too long."""
    return await ctx.promise().named("x" * 48).returns(str)


async def _states(clock: Clock) -> list[State]:
    platform = Platform(settings={"hot_for": 0, "one_request": True})
    states = [(await live(scenario, EMPTY, platform)).final for scenario in CORPUS.values()]
    return [*states, await _state_of_others(clock), await _state_of_lives(clock)]


async def _state_of_others(clock: Clock) -> State:
    store = MemoryStore()
    resonate = Resonate(network=network_on(store, clock), one_request=True)
    resonate.register(every_kind)
    root = "r" * 128
    async with resonate:
        ahead = await resonate.promises.create(native(f"{root}.ahead"), clock() + 10_000_000)
        handle = await resonate.run(root, every_kind).spawn()
        await anyio.sleep(10)
        await resonate.promises.resolve(ahead.id)
        await anyio.sleep(1)
        [late] = [each async for each in resonate.promises.search(state="pending") if "~" in each.id]
        await resonate.promises.resolve(late.id, "done")
        await handle
        return State.of(store, clock())


def _payload(value: Value) -> object:
    return Codec().decode(value)


def _objects_in(error: object) -> Iterator[dict[str, Any]]:
    """An error as JSON, with those that are inside of it."""
    if isinstance(error, dict):
        yield error
        for inner in (error.get("cause"), *(error.get("errors") or ())):
            yield from _objects_in(inner)


async def _state_of_lives(clock: Clock) -> State:
    """After a stop in order and after a crash."""
    world = World(MemoryStore(), clock)
    async with world.process(sleeping) as process:
        await process.resonate.run("w", sleeping).spawn()
        await anyio.sleep(1)
    async with world.process(sleeping) as process:
        await anyio.sleep(1)
        process.kill()
    async with world.process(sleeping):
        await anyio.sleep(1)
        return State.of(world.store, clock())


async def sleeping() -> None:
    """Take long."""
    await anyio.sleep(100)


def _written(promises: Iterable[Promise]) -> dict[str, set[str]]:
    """What of ours is in these records, by kind."""
    found: dict[str, set[str]] = {kind: set() for kind in ("tag", "header", "segment", "param", "cancelled", "error")}
    for promise in promises:
        found["tag"] |= {tag for tag in promise.tags if not tag.startswith("resonate:")}
        found["header"] |= {*(promise.value.headers or ()), *(promise.param.headers or ())}
        for part in re.split(r"[.:]", promise.id):
            if part.startswith("~"):
                known = re.match(r"~[a-z]+-(?=\d|[\w-]{22}$)", part)
                found["segment"].add(known[0] if known else "~")
        if "resonate:parent" in promise.tags and isinstance(param := _payload(as_call(promise).param), dict):
            found["param"].add(json.dumps(sorted(param)))
        match promise.state, _payload(promise.value):
            case PromiseState.CANCELED, dict() as reason:
                found["cancelled"] |= set(reason)
            case PromiseState.REJECTED, error:
                found["error"] |= {member for each in _objects_in(error) for member in each}
            case _:
                pass
    return found


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_what_programs_write(clock: Clock) -> None:
    """Whatever the workflows of the corpus record is in the table, and together they record most of it."""
    written = _written(promise for state in await _states(clock) for promise in state.stored)
    assert written["tag"] == _literals("tag")
    assert written["header"] == _literals("header")
    known = {re.match(r"~([a-z]+-)?", text) for text in _literals("segment") if text.startswith("~")}
    assert written["segment"] == {found[0] for found in known if found}
    params = [set(json.loads(members)) for members in written["param"]]
    rows = _of_table("param")
    assert [] == [param for param in params if not any(param <= row for row in rows)]
    assert set().union(*rows) == set().union(*params)
    values = set().union(*_of_table("value"))
    assert written["cancelled"] | written["error"] == values
