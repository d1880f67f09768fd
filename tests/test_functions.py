"""What the engine knows of a callable, and how its calls are written and read."""

from __future__ import annotations

import functools
import gc
import inspect
import operator
import typing
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pytest

from resonate_anyio._api._context import Context
from resonate_anyio._codec import Call, Codec
from resonate_anyio._errors import (
    AlreadyRegistered,
    DecodeError,
    EncodeError,
    InvalidArgument,
    InvalidFunction,
    NotRegistered,
)
from resonate_anyio._functions._arguments import RemoteCall, bind, encode_arguments
from resonate_anyio._functions._durable import durable
from resonate_anyio._functions._function import Function, check_call
from resonate_anyio._functions._info import Info
from resonate_anyio._functions._registry import Registry
from resonate_anyio._functions._retry import Retry
from resonate_anyio._functions._signatures import Kind

if TYPE_CHECKING:
    from nowhere import Context as Ctx, Missing  # type: ignore[import-not-found]

    import resonate_anyio

T = TypeVar("T")
CODEC = Codec()


@attrs.frozen
class Point:
    x: int
    y: int = 0


async def leaf(point: Point, times: int = 2) -> Point:
    return Point(point.x * times, point.y * times)


def sync_leaf(text: str) -> str:
    return text.upper()


async def workflow(ctx: Context, name: str) -> str:
    return name


async def told(info: Info, name: str) -> str:
    return info.id + name


class Service:
    async def flow(self, ctx: Context, day: datetime) -> str:
        return day.isoformat()

    async def step(self, n: int) -> int:
        return n

    @durable(name="helper")
    @staticmethod
    async def helper(n: int) -> int:
        return n

    async def __call__(self, n: int) -> int:
        return n


def plain_wrapper(func: Callable[..., T]) -> Callable[..., T]:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> T:
        return func(*args, **kwargs)

    return wrapper


# --- what a function is


@pytest.mark.parametrize(
    ("func", "kind", "is_async"),
    [
        (leaf, Kind.LEAF, True),
        (sync_leaf, Kind.LEAF, False),
        (workflow, Kind.WORKFLOW, True),
        (told, Kind.INFO_LEAF, True),
        (Service().flow, Kind.WORKFLOW, True),
        (Service().step, Kind.LEAF, True),
        (plain_wrapper(workflow), Kind.WORKFLOW, True),
    ],
)
def test_the_first_annotation_decides_the_kind(func: Callable[..., Any], kind: Kind, is_async: bool) -> None:
    """Context makes a workflow, Info a leaf that is told of its call, anything else a leaf."""
    function = Function.of(func)

    assert (kind, is_async) == (function.kind, function.is_async)


def test_the_context_is_no_parameter_of_callers() -> None:
    """Signature and hints are what callers see."""
    function = Function.of(workflow)

    assert ["name"] == list(function.signature.parameters)
    assert {"name": str} == function.hints
    assert function.returns is str


def test_a_function_has_its_own_name_and_version_one() -> None:
    """Without settings the name is the function's own."""
    function = Function.of(Service().flow)

    assert ("flow", 1) == (function.name, function.version)


def test_without_annotations_everything_is_any() -> None:
    """Parameters without annotations have no hint, and the result is Any."""
    function = Function.of(lambda x: x, name="identity")

    assert {} == function.hints
    assert function.returns is Any


@pytest.mark.parametrize("func", [Service(), functools.partial(leaf, times=3)])
def test_callables_without_a_name_need_one(func: Callable[..., Any]) -> None:
    """Partials and callable objects work, with a name."""
    with pytest.raises(InvalidFunction, match="name="):
        Function.of(func)

    function = Function.of(func, name="named")

    assert ("named", True, Kind.LEAF) == (function.name, function.is_async, function.kind)


def test_a_partial_keeps_the_types_of_what_is_left() -> None:
    """The hints of a partial are those of the function inside."""
    function = Function.of(functools.partial(leaf, times=3), name="tripled")

    assert [Point(1)] == bind(function, CODEC, Call("tripled", args=[{"x": 1}]))[0]
    assert function.returns is Point


@pytest.mark.parametrize("func", [print, getattr, operator.itemgetter(0)])
def test_builtins_take_what_python_says_they_take(func: Callable[..., Any]) -> None:
    """Where Python cannot tell the parameters, the call is passed through."""
    function = Function.of(func, name="builtin")

    check_call(function, ([1, 2],), {})
    assert (Kind.LEAF, False, {}) == (function.kind, function.is_async, function.hints)


def test_a_static_method_object_is_looked_through() -> None:
    """It is callable, so it may be registered as it stands in the class."""
    function = Function.of(vars(Service)["helper"])

    assert ("helper", {"n": int}) == (function.name, function.hints)


def test_markers_may_be_annotated() -> None:
    """Annotated adds to a type and does not change it."""

    async def func(ctx: typing.Annotated[Context, "the engine's"], n: int) -> int:
        return n

    assert Function.of(func).kind is Kind.WORKFLOW


def test_looking_twice_is_cheap_and_keeps_nothing_alive() -> None:
    """What was found is cached with the function, and goes with it."""

    async def short_lived(n: int) -> int:
        return n

    assert Function.of(short_lived).signature is Function.of(short_lived).signature
    gone = weakref.ref(short_lived)
    del short_lived
    gc.collect()

    assert gone() is None


def test_a_function_that_changes_is_described_again() -> None:
    """Settings, name and code are those of now, however often the function was described before."""

    async def func(n: int) -> int:
        return n

    assert ("func", 1, None) == (Function.of(func).name, Function.of(func).version, Function.of(func).retry)

    durable(version=2, retry=Retry(attempts=5), timeout=3)(func)
    assert ("func", 2, Retry(attempts=5)) == (
        Function.of(func).name,
        Function.of(func).version,
        Function.of(func).retry,
    )
    assert 3000 == Function.of(func).timeout_ms

    durable(func)
    assert (1, None, None) == (Function.of(func).version, Function.of(func).retry, Function.of(func).timeout_ms)

    func.__name__ = "renamed"
    assert Function.of(func).name == "renamed"

    with warnings.catch_warnings():
        # Python 3.13 warns of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        func.__code__ = generator.__code__
    with pytest.raises(InvalidFunction, match="is a generator function"):
        Function.of(func)


def test_what_register_says_is_not_remembered() -> None:
    """A name, a version or a form of arguments given for one registration holds for that one."""

    async def func(numbers: list[int]) -> None:
        pass

    for _ in range(2):
        other = Function.of(func, name="other", version=3, single_arg=True)
        assert ("other", 3, True) == (other.name, other.version, other.single_arg)
        own = Function.of(func)
        assert ("func", 1, False) == (own.name, own.version, own.single_arg)


def test_a_wrapper_is_described_by_itself() -> None:
    """`functools.wraps` copies the name and the attributes of a function, but its description belongs to it alone."""

    @durable(name="audit", timeout=1)
    async def func(n: int) -> int:
        return n

    inner = Function.of(func)
    outer = Function.of(plain_wrapper(func))

    assert inner.func is func
    assert outer.func is not func
    assert ("audit", 1000) == (outer.name, outer.timeout_ms)


def test_settings_that_refer_to_their_function_do_not_keep_it_alive() -> None:
    """The filter of a retry policy may be a method or a closure that leads back to the function."""

    def make() -> weakref.ref[Callable[..., Any]]:
        @durable(retry=Retry(attempts=2, on=lambda error: bool(func)))
        async def func(n: int) -> int:
            return n

        assert Function.of(func).retry is not None
        return weakref.ref(func)

    gone = make()
    gc.collect()

    assert gone() is None


# --- annotations that need finding


def test_a_context_known_to_type_checkers_only_is_matched_by_its_last_name() -> None:
    """An import under TYPE_CHECKING is enough for the marker, whatever the path and the quotes."""

    async def dotted(ctx: resonate_anyio.Context, n: int) -> int:
        return n

    async def quoted(info: "typing.Missing.Info", n: int) -> int:  # type: ignore[name-defined] # noqa: UP037
        return n

    assert Function.of(dotted).kind is Kind.WORKFLOW
    assert Function.of(quoted).kind is Kind.INFO_LEAF
    assert {"n": int} == Function.of(dotted).hints


def test_another_class_called_context_is_no_marker() -> None:
    """A class that resolves is judged by what it is, not by its name."""

    class Context:
        pass

    @durable
    async def leaf_with_context(ctx: Context) -> None:
        pass

    assert Function.of(leaf_with_context).kind is Kind.LEAF


def test_local_classes_are_found_while_their_function_runs() -> None:
    """A class of a test or of a main is out of an annotation's reach, but not of the stack's."""

    @attrs.frozen
    class Local:
        x: int

    async def func(value: Local) -> list[Local]:
        return [value]

    function = Function.of(func)

    assert function.hints["value"] is Local
    assert function.returns == list[Local]


def test_durable_remembers_local_classes_for_later() -> None:
    """What durable decorates inside a function can be registered after that function has returned."""

    def make() -> Callable[..., Any]:
        @attrs.frozen
        class Local:
            x: int

        @durable
        async def func(value: Local) -> Local:
            return value

        return func

    assert "Local" in repr(Function.of(make()).returns)


def test_local_classes_are_out_of_reach_once_their_function_has_returned() -> None:
    """Without durable nothing looked while they could be found."""

    def make() -> Callable[..., Any]:
        class Local:
            pass

        async def func(value: Local) -> None:
            pass

        return func

    with pytest.raises(InvalidFunction, match="'Local' of 'value'"):
        Function.of(make())


def test_an_annotation_that_does_not_exist_is_refused_with_the_fix() -> None:
    """Values are decoded by annotations, so a name that is missing at run time is an error."""

    async def func(value: Missing) -> None:
        pass

    with pytest.raises(InvalidFunction, match=r"'Missing' of 'value'.*TYPE_CHECKING"):
        Function.of(func)


def test_an_alias_of_the_context_is_not_guessed() -> None:
    """Only the names Context and Info are matched when nothing resolves."""

    async def func(ctx: Ctx) -> None:
        pass

    with pytest.raises(InvalidFunction, match="'Ctx' of 'ctx'"):
        Function.of(func)


# --- what cannot be a durable function


async def generator() -> AsyncIterator[int]:
    yield 1


def sync_generator() -> Iterator[int]:
    yield 1


async def misplaced(n: int, ctx: Context) -> None:
    pass


def sync_workflow(ctx: Context) -> None:
    pass


async def unmarked(ctx, n: int) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the point
    pass


async def unmarked_info(info, n: int) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the point
    pass


async def keyword_context(*, ctx: Context) -> None:
    pass


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (Point, "Point is a class"),
        (3, "must be callable, not int 3"),
        (lambda: 1, "a lambda has no name"),
        (generator, "generator is a generator function"),
        (sync_generator, "is a generator function"),
        (plain_wrapper(generator), "is a generator function"),
        (misplaced, "'ctx' is annotated with Context, which only the first parameter can be"),
        (Service.flow, "pass the bound method"),
        (sync_workflow, "it must be `async def`"),
        (unmarked, "Write `ctx: Context`"),
        (unmarked_info, "Write `info: Info`"),
        (keyword_context, "passed by position"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(func: Any, message: str) -> None:
    """Every refusal names the function and says what to write."""
    with pytest.raises(InvalidFunction) as caught:
        Function.of(func)

    assert message in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_a_called_function_is_recognised() -> None:
    """Passing f(x) instead of f, x shows both spellings, and no second warning follows."""
    coroutine = leaf(Point(1))

    with pytest.raises(InvalidFunction) as caught:
        Function.of(coroutine)  # type: ignore[arg-type]

    assert "ctx.run(leaf(x, y))  # incorrect!" in str(caught.value)
    assert "ctx.run(leaf, x, y)  # correct" in str(caught.value)
    assert inspect.CORO_CLOSED == inspect.getcoroutinestate(coroutine)


@pytest.mark.parametrize(("name", "version"), [("", None), (3, None), (None, 0), (None, True), (None, "1")])
def test_unusable_names_and_versions_are_refused(name: Any, version: Any) -> None:
    """A name is a string with something in it, a version an int from 1."""
    with pytest.raises(InvalidArgument):
        Function.of(leaf, name=name, version=version)


# --- durable


def test_durable_returns_the_same_function() -> None:
    """With and without parentheses, the function itself comes back."""

    async def func() -> None:
        pass

    assert durable(func) is func
    assert durable(name="other")(func) is func


def test_durable_leaves_settings() -> None:
    """Name, version, retry and timeout reach the engine."""

    @durable(name="audit", version=3, retry=Retry(attempts=5), timeout=timedelta(minutes=1))
    async def func(text: str) -> None:
        pass

    function = Function.of(func)

    assert ("audit", 3, Retry(attempts=5), 60.0) == (
        function.name,
        function.version,
        function.retry,
        function.timeout,
    )


def test_explicit_settings_win_over_durable() -> None:
    """What register() is given overrides what durable() was."""

    @durable(name="audit", version=3)
    async def func() -> None:
        pass

    function = Function.of(func, name="other", version=4)

    assert ("other", 4) == (function.name, function.version)


def test_settings_survive_wraps_and_static_methods() -> None:
    """A decorator with functools.wraps on top keeps them, and a static method has them on what the class gives."""

    @plain_wrapper
    @durable(name="audit")
    async def func() -> None:
        pass

    assert Function.of(func).name == "audit"
    assert Function.of(Service.helper).name == "helper"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: durable(generator), InvalidFunction),
        (lambda: durable(Point), InvalidFunction),
        (lambda: durable(len), InvalidFunction),
        (lambda: durable("audit"), InvalidArgument),  # type: ignore[call-overload]
        (lambda: durable(name=""), InvalidArgument),
        (lambda: durable(version=0), InvalidArgument),
        (lambda: durable(timeout=-1), InvalidArgument),
        (lambda: durable(retry=5), InvalidArgument),  # type: ignore[call-overload]
    ],
)
def test_durable_refuses_nonsense_at_once(make: Callable[[], object], error: type[Exception]) -> None:
    """Mistakes show where they are written, at import."""
    with pytest.raises(error):
        make()


async def _workflow(ctx: Context) -> None:
    """A workflow; its annotations can be read."""


def test_a_retry_policy_of_a_workflow_is_refused() -> None:
    """It would be ignored: where it is written, if the function can be looked at by then, else where it is used."""
    with pytest.raises(InvalidFunction, match="is a workflow and cannot have a retry policy"):
        durable(retry=Retry(attempts=5))(_workflow)

    @durable(retry=Retry(attempts=5))
    async def func(ctx: Context, later: Later) -> None:
        """Its annotations cannot be read yet."""

    class Later:
        """Now they can."""

    with pytest.raises(InvalidFunction, match="the leaves that it calls"):
        Function.of(func)


# --- calls


def test_arguments_are_written_by_annotation_and_read_back() -> None:
    """What encode_arguments writes, bind gives back, typed."""
    function = Function.of(leaf)

    args, kwargs = encode_arguments(function, CODEC, (Point(1, 2),), {"times": 3})

    assert ([{"x": 1, "y": 2}, 3], {}) == (args, kwargs)
    assert ([Point(1, 2), 3], {}) == bind(function, CODEC, Call("leaf", 1, args, kwargs))


def test_keywords_stay_where_positions_would_leave_a_gap() -> None:
    """Keywords become positions only as far as no default has to be skipped."""

    async def func(a: int = 1, b: int = 2, *, c: int = 3) -> None:
        pass

    function = Function.of(func)

    assert ([], {"b": 5}) == encode_arguments(function, CODEC, (), {"b": 5})
    assert ([4, 5], {"c": 6}) == encode_arguments(function, CODEC, (), {"c": 6, "b": 5, "a": 4})


def test_arguments_of_an_unknown_function_are_written_as_they_are() -> None:
    """By name there are no annotations; each value's own type decides."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    args, kwargs = encode_arguments(None, CODEC, (Point(1), {1, 2}), {"at": moment})

    assert ([{"x": 1, "y": 0}, [1, 2]], {"at": "2026-01-01T00:00:00+00:00"}) == (args, kwargs)


def test_star_parameters_are_typed_item_by_item() -> None:
    """*args and **kwargs have the annotation of one item."""

    async def func(*points: Point, **named: Point) -> None:
        pass

    function = Function.of(func)
    args, kwargs = encode_arguments(function, CODEC, (Point(1), Point(2)), {"c": Point(3)})

    assert ([Point(1), Point(2)], {"c": Point(3)}) == bind(function, CODEC, Call("func", 1, args, kwargs))


def test_defaults_are_left_to_python() -> None:
    """An argument that was not sent is not passed."""
    assert ([Point(1)], {}) == bind(Function.of(leaf), CODEC, Call("leaf", args=[{"x": 1}]))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'point'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"nope": 1}, "unexpected keyword argument 'nope'"),
    ],
)
def test_a_call_that_cannot_work_is_refused_before_it_is_sent(
    args: tuple[object, ...], kwargs: dict[str, object], message: str
) -> None:
    """The number and the names of arguments are checked at the call site, and again by the worker."""
    function = Function.of(leaf)

    for attempt in (
        lambda: check_call(function, args, kwargs),
        lambda: encode_arguments(function, CODEC, args, kwargs),
        lambda: bind(function, CODEC, Call("leaf", 1, list(args), kwargs)),
    ):
        with pytest.raises(InvalidArgument) as caught:
            attempt()
        assert message in str(caught.value)
        assert "'leaf'" in str(caught.value)
        assert "times: 'int' = 2" in str(caught.value)


def test_a_context_passed_by_hand_is_refused() -> None:
    """The engine passes it; a second one would take the place of an argument."""
    by_hand = Context.__new__(Context)

    with pytest.raises(InvalidArgument, match="the worker passes the Context itself"):
        check_call(Function.of(workflow), (by_hand, "x"), {})


def test_a_bad_argument_is_named_on_both_sides() -> None:
    """Function, parameter, place, what was expected and what was found."""
    function = Function.of(leaf)

    with pytest.raises(DecodeError) as read:
        bind(function, CODEC, Call("leaf", 1, [{"x": "one"}]))
    with pytest.raises(EncodeError) as written:
        encode_arguments(function, CODEC, ("not a point",), {})

    assert "argument 'point' of 'leaf'" in str(read.value)
    assert "expected int, got str 'one' at $.x" in str(read.value)
    expected = "argument 'point' of 'leaf' cannot be recorded: expected Point, got str 'not a point' at $"
    assert expected == str(written.value)


# --- arguments by themselves, as Rust and Go send them


def total(numbers: list[int]) -> int:
    return sum(numbers)


def perhaps(numbers: list[int] | None, /) -> None:
    pass


def rows(numbers: list[list[int]]) -> None:
    pass


def by_default(numbers: list[int] | None = None) -> None:
    pass


@pytest.mark.parametrize(
    ("args", "expected"),
    [((), None), ((5,), 5), (([1, 2],), [1, 2]), ((Point(1),), {"x": 1, "y": 0}), ((1, 2), [1, 2])],
)
def test_bare_arguments_are_recorded_as_rust_does(args: tuple[Any, ...], expected: object) -> None:
    """None is null, one is by itself, several are an array; the name and the version are as ever."""
    recorded = CODEC.decode(RemoteCall(func="f", args=args, kwargs={}, version=3, bare=True).encode(CODEC))

    assert {"func": "f", "args": expected, "version": 3} == recorded


def test_bare_arguments_have_no_keywords() -> None:
    """Other than for a parameter that can be given by position, they would be lost."""
    call = RemoteCall(func=Function.of(leaf), args=(), kwargs={"point": Point(1)}, bare=True)
    assert {"x": 1, "y": 0} == CODEC.decode(call.encode(CODEC))["args"]

    with pytest.raises(InvalidArgument, match=r"'f' is called with bare arguments, .* no keywords \(a\)"):
        RemoteCall(func="f", args=(), kwargs={"a": 1}, bare=True).encode(CODEC)


@pytest.mark.parametrize(
    ("func", "given"), [(total, []), (total, [1]), (total, [1, 2, 3]), (rows, [[1, 2]]), (perhaps, None)]
)
def test_a_single_argument_may_be_an_array(func: Callable[..., Any], given: object) -> None:
    """A function that says so gets all that is recorded as its one argument, and is called so by its own SDK."""
    function = Function.of(func, single_arg=True)

    recorded = RemoteCall(func=function, args=(given,), kwargs={}).encode(CODEC)

    assert given == CODEC.decode(recorded)["args"]
    assert ([given], {}) == bind(function, CODEC, CODEC.decode_call(recorded))


@pytest.mark.parametrize(("func", "expected"), [(perhaps, [None]), (by_default, [])])
def test_no_argument_is_none_unless_there_is_a_default(func: Callable[..., Any], expected: list[Any]) -> None:
    """Null may mean both: a default settles it."""
    assert (expected, {}) == bind(Function.of(func, single_arg=True), CODEC, Call("f"))


def test_durable_and_register_say_that_a_function_takes_a_single_argument() -> None:
    """The decorator's word holds where the registration has none."""

    @durable(single_arg=True)
    def marked(numbers: list[int]) -> None:
        pass

    assert Function.of(marked).single_arg
    assert not Function.of(marked, single_arg=False).single_arg
    assert Registry().add(total, single_arg=True).single_arg
    assert not Registry().add(total).single_arg


@pytest.mark.parametrize(
    "func", [lambda: None, lambda a, b: None, lambda a, b=1: None, lambda *a: None, lambda *, a: None]
)
def test_a_single_argument_needs_one_parameter(func: Callable[..., Any]) -> None:
    """Whatever is recorded has to go somewhere, and nothing else can be given."""
    with pytest.raises(InvalidFunction, match="with single_arg=True it takes one argument, by position"):
        Function.of(func, name="f", single_arg=True)


# --- the registry


def test_the_registry_finds_by_name_version_and_callable() -> None:
    """None and 0 mean the latest version, 1 means it where there is no version 1."""
    registry = Registry()
    second = registry.add(leaf, version=2)
    third = registry.add(sync_leaf, name="leaf", version=3)

    assert second is registry.get("leaf", 2)
    assert third is registry.get("leaf")
    assert third is registry.get("leaf", 0)
    assert third is registry.get("leaf", 1)
    assert second is registry.find(leaf)
    assert registry.find(workflow) is None
    assert ["leaf (version 2)", "leaf (version 3)"] == registry.names


def test_registering_twice_is_fine_and_another_function_is_not() -> None:
    """The same callable may be registered again; a different one under the same name and version may not."""
    registry = Registry()
    service = Service()
    first = registry.add(service.step)

    assert first is registry.add(service.step)
    with pytest.raises(AlreadyRegistered, match="'step' version 1"):
        registry.add(leaf, name="step")
    assert first is registry.get("step", 1)


@pytest.mark.parametrize(("name", "version"), [("nope", None), ("leaf", 2)])
def test_what_is_not_registered_is_named_with_what_is(name: str, version: int | None) -> None:
    """The error lists what is known."""
    registry = Registry()
    registry.add(leaf)

    with pytest.raises(NotRegistered, match="Registered: leaf"):
        registry.get(name, version)
