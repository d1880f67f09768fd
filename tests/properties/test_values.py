"""Generated values, errors, types and payloads of peers: nothing but the documented errors, and no leaf runs twice.

The seed of a run chooses some examples. `--campaigns all` takes a fixed set of them, and `--campaigns 20` twenty times
as many, other ones each time; pytest needs `--timeout=0` then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import logging
import math
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import anyio
import attrs
import numpy as np
import pytest
from attrs import define, field, frozen
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from pydantic import BaseModel, RootModel, SecretStr

from resonate_anyio import ApplicationError, Context, DecodeError, EncodeError, Resonate, _errors
from resonate_anyio._codec import Codec
from resonate_anyio._protocol import PromiseSettle, PromiseState, Request, Response, Value
from resonate_anyio._workflow._reasons import Reason
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock, run_virtual

from .. import nasty
from ..chosen import native
from ..engine.harness import Look, World, creates, settles
from .examples import examples

CODEC: Final = Codec(nasty.converter_with_a_panic())
T = TypeVar("T")


# --- what is generated


class Level(Enum):
    LOW = 1
    NAMED = "x"


class Item(BaseModel):
    x: int
    note: str | None = None


class Login(BaseModel):
    password: SecretStr


class Items(RootModel[list[Item]]):
    pass


class Pair(NamedTuple):
    x: int
    y: str


class Options(TypedDict, total=False):
    x: int


@attrs.frozen
class Point:
    x: int
    y: Any = None


@dataclasses.dataclass
class Holder:
    inner: Any
    point: Point | None = None


class Boom(Exception):
    pass


class Coded(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"failed with {code}")


class Choosy(Exception):
    def __init__(self, code: int) -> None:
        if not isinstance(code, int):
            raise nasty.Panic
        super().__init__(code)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: Any = None


class Adding(Exception):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.add_note("made by the constructor")


class Falsy(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError


TEXTS: Final = st.text(st.characters(exclude_categories=[]), max_size=8)
"""Lone surrogates included."""

ATOMS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXTS,
    st.binary(max_size=5),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.uuids(),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.timedeltas(),
    st.ip_addresses(),
    st.sampled_from(Level),
    st.integers(-1000, 1000).map(np.int16),
    st.floats(width=32).map(np.float32),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.sampled_from([np.array([[1, 2], [3, 4]]), np.array([object()]), np.datetime64("2024-01-01"), np.array(["a"])]),
    st.integers().map(lambda x: Item(x=x)),
    st.integers().map(lambda x: Item.model_construct(x=str(x))),
    st.just(Login(password=SecretStr("secret"))),
    st.just(SecretStr("secret")),
    st.builds(Items, st.lists(st.integers().map(lambda x: Item(x=x)), max_size=2)),
    st.builds(Pair, st.integers(), TEXTS),
    st.sampled_from([Path("a"), range(3), print, Item, object(), Ellipsis, NotImplemented]),
)


def _called(make: Callable[[], Any]) -> Any:
    return make()


_MAKERS: Final[list[Callable[[], Any]]] = [
    nasty.Raising,
    nasty.Hidden,
    nasty.Endless,
    nasty.Fickle,
    nasty.Taught,
    nasty.containing_itself,
    lambda: nasty.Wide(nasty.Raising()),
    lambda: nasty.nested(100_000),
    lambda: iter([1, 2]),
    lambda: (each for each in range(2)),
    lambda: ValueError("an error as a value"),
    lambda: {(1, 2): 3},
    lambda: {1: 1, "1": 2},
    lambda: {"\ud800": 1},
    lambda: 10**5000,
]
NASTY: Final = st.sampled_from(_MAKERS).map(_called)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.one_of(TEXTS, st.integers(), st.booleans(), st.none(), st.dates(), st.sampled_from(Level))
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(deque),
        st.dictionaries(keys, inner, max_size=3),
        st.builds(Point, st.integers(), inner),
        st.builds(Holder, inner, st.none() | st.builds(Point, st.integers())),
        st.sets(st.integers() | TEXTS, max_size=3),
    )


VALUES: Final = st.recursive(ATOMS | NASTY, _containers, max_leaves=6)

ERRORS: Final[list[Callable[..., Exception]]] = [
    ValueError,
    KeyError,
    OSError,
    Boom,
    Coded,
    Frozen,
    Adding,
    Falsy,
    RuntimeError,
    StopIteration,
    nasty.Unreadable,
    nasty.Panicking,
    nasty.NotesOfItsOwn,
    lambda *args: ExceptionGroup("several", [ValueError(*args), Boom()]),
    lambda *args: ExceptionGroup("deep", [ExceptionGroup("inner", [Falsy(*args)])]),
    lambda *args: ApplicationError("Remote", "text", "stack", args),
    lambda *_: _errors.NotFound("promise", "x"),
]


@st.composite
def errors(draw: st.DrawFn) -> Exception:
    """Errors of all kinds, with arguments, notes and causes of all kinds."""
    make, args = draw(st.sampled_from(ERRORS)), draw(st.lists(VALUES, max_size=2))
    try:
        error: Exception = make(*args)
    except TypeError:
        error = make(1)
    for note in draw(st.lists(TEXTS, max_size=2)):
        with contextlib.suppress(Exception):
            error.add_note(note)
    if draw(st.booleans()):
        with contextlib.suppress(Exception):
            error.__cause__ = draw(st.sampled_from([ValueError("cause"), nasty.Unreadable(), KeyboardInterrupt()]))
    return error


TYPES: Final[list[Any]] = [
    Any, None, int, float, str, bool, bytes, object, complex, Fraction, Decimal, UUID, datetime, date, timedelta, Path,
    Level, Item, Items, Login, SecretStr, Pair, Options, Point, Holder, T, Counter, deque, np.int16, np.float32,
    np.ndarray, NDArray[np.float64], list, dict, set[int], list[int], list[Point], tuple[int, ...], tuple[int, str],
    dict[str, int], dict[int, Point], dict[Level, Item], Mapping[str, Any], Iterable[int], Iterator[int], int | str,
    Item | None, Item | Point, Point | Holder, Item | Login, NDArray[Any] | int, ipaddress.IPv4Address | None,
    Literal[1, "x"], Callable[[], int], type[int], nasty.Taught, nasty.Wide, list["Nowhere"],  # type: ignore[name-defined] # noqa: F821
    "int", "Nowhere", 5, [int], {"a": int}, (int, str), print, ..., np.array([1, 2]), math.nan, object(), ValueError,
]  # fmt: skip
"""Annotations, and what somebody may take for one."""

JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)

NAMES: Final = st.sampled_from([
    *(f"resonate_anyio._errors:{name}" for name, kind in vars(_errors).items() if isinstance(kind, type)),
    *(f"{__name__}:{kind.__name__}" for kind in (Boom, Coded, Choosy, Frozen, Adding, Falsy)),
    *(f"tests.nasty:{name}" for name in ("Unreadable", "Panicking", "Panic", "NotesOfItsOwn", "Frozen")),
    *(f"builtins:{name}" for name in ("ValueError", "OSError", "ExceptionGroup", "KeyError", "UnicodeDecodeError")),
    "builtins:SystemExit", "builtins:BaseExceptionGroup", "builtins:type", "json:decoder.JSONDecodeError", "os:path",
    "numpy:ndarray", "pydantic:ValidationError", "pydantic_core:ValidationError", "sys:modules", "", ":", "a:b.c.d",
])  # fmt: skip


def _records(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members: dict[str, st.SearchStrategy[Any]] = {
        "type": NAMES | JSON,
        "args": st.lists(JSON, max_size=5) | JSON,
        "message": TEXTS | JSON,
        "name": TEXTS | JSON,
        "stack": TEXTS | JSON,
        "notes": st.lists(JSON, max_size=2) | JSON,
        "remote": st.booleans() | JSON,
        "cause": inner | JSON,
        "errors": st.lists(inner, max_size=2) | JSON,
        "__type": st.sampled_from(["error", "aggregate_error"]) | JSON,
    }
    return st.fixed_dictionaries({}, optional=members)


RECORDS: Final = st.recursive(_records(JSON), _records, max_leaves=3)
"""What a peer may record as an error: much like one of this SDK's, or not at all."""

REASONS: Final = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(["scope", "group", "deadline", "parent", "choice", "outside"]) | JSON
                  for name in ("by",)} | {name: st.integers() | JSON for name in ("depth", "instant", "started")}
)  # fmt: skip


def _packed(plain: Any) -> str:
    # Not strict: NaN, infinities and lone surrogates are in it, as some writers write them.
    text = json.dumps(plain).replace("Infinity", "1e999")
    return b64encode(text.encode()).decode()


PAYLOADS: Final = st.one_of(
    st.none(),
    RECORDS.map(_packed),
    JSON.map(_packed),
    REASONS.map(_packed),
    st.binary(max_size=20).map(lambda data: b64encode(data).decode()),
    st.text(st.characters(exclude_categories=["Cs"], min_codepoint=1), max_size=8),
    st.sampled_from(["[" * 100_000, '{"a":' * 50_000, "9" * 5000, "\ufeff1", '"\\ud800"', "-1e999", ""]).map(
        lambda text: b64encode(text.encode()).decode()
    ),
    st.builds(lambda dtype, shape, data: _packed({"dtype": dtype, "shape": shape, "data": data}),
              st.sampled_from(["int8", "float64", "object", "bool"]) | JSON,
              st.lists(st.integers(-1, 3), max_size=3) | JSON, TEXTS | JSON),
).map(Value)  # fmt: skip


# --- the codec


@frozen(repr=False)
class Made:
    """A value as Hypothesis shows it: many cannot be asked for their text."""

    value: Any

    def __repr__(self) -> str:
        return _shown(self.value)


@st.composite
def values(draw: st.DrawFn) -> Made:
    """Values of all kinds."""
    return Made(draw(VALUES))


@st.composite
def failures(draw: st.DrawFn) -> Made:
    """Errors of all kinds."""
    return Made(draw(errors()))


@examples(200)
@given(values(), st.sampled_from(TYPES))
def test_writing(made: Made, type_: Any) -> None:
    """A value is written, or EncodeError; what was written with a check is read; a digest never fails."""
    value = made.value
    with contextlib.suppress(EncodeError):
        CODEC.decode(CODEC.encode(value))
    with contextlib.suppress(EncodeError):
        CODEC.decode(CODEC.encode(value, type_))
    with contextlib.suppress(EncodeError):
        CODEC.decode_call(CODEC.encode_call("f", 1, [CODEC.to_json(value)]))
    with contextlib.suppress(EncodeError):
        CODEC.decode(CODEC.encode_result(value, type_, function="f"), type_)
    CODEC.digest([value], {"x": value})


@examples(150)
@given(failures())
def test_errors(made: Made) -> None:
    """Every error is written, and read as its type or as ApplicationError; passing on does not make it grow."""
    error: Exception = made.value
    once = CODEC.encode_error(error)
    read = CODEC.decode_error(once, elsewhere=True)
    assert type(read) in {type(error), ApplicationError}
    sizes = []
    for _ in range(4):
        once = CODEC.encode_error(CODEC.decode_error(once, elsewhere=True))
        assert once.data is not None
        sizes.append(len(once.data))
    # A cause that ends programs is text at first, and an error from then on.
    assert sizes[1] == sizes[2] == sizes[3]
    assert len(getattr(read, "__notes__", ())) <= 4


@examples(300)
@given(PAYLOADS, st.sampled_from(TYPES))
def test_reading(payload: Value, type_: Any) -> None:
    """Whatever a peer has written is read, or DecodeError; every payload is an error that can be shown and written."""
    with contextlib.suppress(DecodeError):
        CODEC.decode(payload)
    with contextlib.suppress(DecodeError):
        CODEC.decode(payload, type_)
    with contextlib.suppress(DecodeError):
        assert isinstance(CODEC.decode_call(payload).positional, tuple)
    for elsewhere in (False, True):
        error = CODEC.decode_error(payload, elsewhere=elsewhere)
        assert isinstance(error, Exception)
        if isinstance(error, ApplicationError):
            assert (str, str) == (type(error.name), type(error.message))
        if not isinstance(error, (nasty.Unreadable, nasty.Panicking)):
            str(error)
        CODEC.encode_error(error)


# --- the engine


@frozen
class Leaf:
    """A local call: what its function returns or raises, what it is annotated with, what its caller wants."""

    made: Made
    raises: bool
    annotation: Any
    returns: Any


@frozen
class Peer:
    """A call or promise that a peer settles."""

    state: PromiseState
    payload: Value
    returns: Any


def _is_taken_for_ours(peer: Peer) -> bool:
    """Whether a peer says of its cancellation that this SDK did it: a replay then waits for that to come again."""
    if peer.state is not PromiseState.CANCELED:
        return False
    try:
        return Reason.of(CODEC.decode(peer.payload)) is not None
    except DecodeError:
        return False


STATES: Final = st.sampled_from([PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.CANCELED])
STEPS: Final = st.one_of(
    st.builds(Leaf, values(), st.just(value=False), *[st.sampled_from(TYPES)] * 2),
    st.builds(Leaf, failures(), st.just(value=True), *[st.sampled_from(TYPES)] * 2),
    st.builds(Peer, STATES, PAYLOADS, st.sampled_from(TYPES)).filter(lambda peer: not _is_taken_for_ours(peer)),
)
_ALWAYS: Final = (_errors.DurableCancelledError, _errors.DurableTimeoutError)


@define
class Play:
    """One workflow of such calls, run twice: the second time after a crash at its end.

    Attributes:
        steps: the calls.
        ran: the leaves that have run.
        seen: what each call gave, for each run of the workflow.
        crashed: what the log says of crashes.
    """

    steps: list[Leaf | Peer]
    ran: list[int] = field(factory=list)
    seen: list[list[Any]] = field(factory=list)
    crashed: list[str] = field(factory=list)

    def leaf(self, index: int, step: Leaf) -> Callable[..., Any]:
        async def leaf():  # type: ignore[no-untyped-def]  # noqa: ANN202 - the annotation is set below
            self.ran.append(index)
            outcome = step.made.value
            if step.raises:
                raise outcome
            return outcome

        if step.annotation is not Any:
            leaf.__annotations__["return"] = step.annotation
        return leaf

    async def flow(self, ctx: Context) -> None:
        outcomes: list[Any] = []
        self.seen.append(outcomes)
        for index, step in enumerate(self.steps):
            outcomes.append(await self.outcome(ctx, index, step))
        await ctx.run(self.last)

    async def last(self) -> None:
        pass

    async def outcome(self, ctx: Context, index: int, step: Leaf | Peer) -> Any:
        try:
            if isinstance(step, Peer):
                return "value", _shown(await ctx.promise().named(f"call-{index}").returns(step.returns))
            call = ctx.run(self.leaf(index, step)).named(f"call-{index}")
            return "value", _shown(await call.returns(step.returns))
        except Exception as exc:  # noqa: BLE001 - what it is, is the question
            return self.allowed(step, exc)

    def allowed(self, step: Leaf | Peer, exc: Exception) -> Any:
        """The error as it is compared, if it is one of those that are documented for the call."""
        if isinstance(step, Peer):
            expected = {type(CODEC.decode_error(step.payload)), DecodeError, *_ALWAYS}
        elif step.raises:
            expected = {type(step.made.value), ApplicationError, RuntimeError}
        else:
            expected = {EncodeError, DecodeError}
        # A function with an impossible annotation is refused before it is called.
        refused = isinstance(exc, _errors.InvalidFunction)
        if not refused and type(exc) not in expected:
            self.crashed.append(f"{type(exc).__name__} {_text(exc)} is not documented for {step}")
        notes = getattr(exc, "__notes__", None)
        shown = [_text(note) for note in notes] if isinstance(notes, list) else []
        return "error", type(exc).__name__, _text(exc), shown


def _shown(value: Any) -> str:
    try:
        return f"{type(value).__name__} {value!r}"
    except Exception:  # noqa: BLE001 - its type is all that can be told
        return type(value).__name__


def _text(value: object) -> str:
    try:
        return str(value)
    except BaseException as exc:  # noqa: BLE001 - likewise
        return type(exc).__name__


class _Crashes(logging.Handler):
    def __init__(self, play: Play) -> None:
        super().__init__()
        self.play = play

    def emit(self, record: logging.LogRecord) -> None:
        # Killed processes crash; nothing else may.
        error = record.exc_info[1] if record.exc_info else None
        if "crashed" in record.msg and type(error).__name__ != "Unreachable":
            self.play.crashed.append(f"{record.getMessage()} {error!r}")


async def _play(play: Play) -> None:
    world = World(MemoryStore(), VirtualClock())
    try:
        process = world.process(play.flow, converter=nasty.converter_with_a_panic())
        _answer(process.resonate, process.wire, play, kill=process.kill)
        await world.run_until_killed(process, "w", play.flow)
        process = world.process(play.flow, converter=nasty.converter_with_a_panic())
        async with process:
            with anyio.fail_after(600):
                await (await process.resonate.get("w")).result()
            await anyio.sleep(600)
    finally:
        world.store.close()


def _answer(resonate: Resonate, wire: Any, play: Play, kill: Callable[[], None]) -> None:
    """Settle what a peer settles as soon as it is made, and die when the last leaf has ended."""
    peers = {native(f"w.call-{index}"): step for index, step in enumerate(play.steps) if isinstance(step, Peer)}

    async def after(request: Request, _: Response) -> None:
        for id, step in peers.items():
            if creates(id)(request):
                await Look(resonate).request(PromiseSettle(id=id, state=step.state, value=step.payload))
        if settles(native("w.last-1"))(request):
            kill()

    wire.after = after


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@examples(40)
@given(st.lists(STEPS, min_size=1, max_size=4))
def test_outcomes(backend: str, steps: list[Leaf | Peer]) -> None:
    """Each call gives a value or a documented error, the same live and on a replay, and each leaf runs once."""
    play = Play(steps)
    logger, handler = logging.getLogger("resonate_anyio"), _Crashes(play)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        run_virtual(_play, play, backend=backend)
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
    assert [] == play.crashed
    assert 2 == len(play.seen)
    assert play.seen[0] == play.seen[1]
    assert sorted(set(play.ran)) == sorted(play.ran)
