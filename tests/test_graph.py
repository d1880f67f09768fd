"""Ids: what they look like, what they may contain, and how they stay short."""

from __future__ import annotations

import re

import pytest
from attrs import evolve
from hypothesis import given, strategies as st

from resonate_anyio import InvalidArgument, InvalidId
from resonate_anyio._history import DETACHED_TAG, LANE_TAG, PARENT_TAG, History, descendants_of
from resonate_anyio._ids import (
    Counter,
    check_name,
    check_prefix,
    check_root_id,
    child_id,
    detached_id,
    hashed,
    origin_of,
    segment,
)
from resonate_anyio._protocol import Promise, PromiseState


def test_calls_are_counted_by_name() -> None:
    """The n-th call of a name is `{name}-{n}`, whatever is called in between."""
    counter = Counter()

    assert ["fetch-1", "parse-1", "fetch-2"] == [counter.number(name) for name in ("fetch", "parse", "fetch")]


def test_counting_ignores_case() -> None:
    """Names that differ in case only share one count, since a database may not tell them apart."""
    counter = Counter()

    assert ["Fetch-1", "fetch-2"] == [counter.number("Fetch"), counter.number("fetch")]


def test_the_engine_counts_by_itself() -> None:
    """What the engine numbers begins with `~` and shares no count with a call of the same name."""
    counter = Counter()

    assert ["now-1", "~now-1", "~now-2", "now-2"] == [
        counter.number("now"),
        counter.number_own("now"),
        counter.number_own("now"),
        counter.number("now"),
    ]


def test_what_is_counted_is_the_segment() -> None:
    """Names that have the same safe spelling share one count, so that their ids cannot meet."""
    counter = Counter()

    assert ["a_b-1", "a_b-2"] == [counter.number("a.b"), counter.number("a b")]


@given(st.text(min_size=1))
def test_segments_are_safe_and_short(name: str) -> None:
    """Whatever a function is called, its segment has safe characters only and at most 48 of them."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,48}", segment(name))


def test_long_names_stay_apart() -> None:
    """Two long names with the same beginning get different segments."""
    assert segment("x" * 60 + "a") != segment("x" * 60 + "b")


def test_only_segments_are_names() -> None:
    """A name given by the user is taken as it is or refused with a proposal."""
    assert check_name("first-approval") == "first-approval"

    with pytest.raises(InvalidId, match=r"'a\.b' cannot name a call.*'a_b'"):
        check_name("a.b")
    with pytest.raises(InvalidId, match="'' cannot name a call"):
        check_name("")


def test_engine_segments_cannot_be_named() -> None:
    """Segments of the engine's own start with a character that no user's has."""
    with pytest.raises(InvalidId):
        check_name("~wake-1")


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("", "must not be empty"),
        ("a.b", r"contains '\.'.*e\.g\. 'a-b'"),
        ("a:b", r"contains ':'.*e\.g\. 'a-b'"),
        ("a\0b", "null character"),
        ("x" * 129, "has 129 bytes; 128 are allowed"),
        ("é" * 65, "has 130 bytes"),
    ],
)
def test_bad_root_ids_are_refused(id: str, message: str) -> None:
    """A root id that would break the call graph is refused with what to write instead."""
    with pytest.raises(InvalidId, match=message):
        check_root_id(id)


def test_a_root_id_must_be_text() -> None:
    """A number is no id, even though it could be made one."""
    with pytest.raises(InvalidId, match="is a string, not int: 7"):
        check_root_id(7)  # type: ignore[arg-type]


def test_the_prefix_is_put_before_once() -> None:
    """A prefix is verbatim, and an id that has it keeps it as it is."""
    assert check_root_id("wf", prefix="prod-") == "prod-wf"
    assert check_root_id("prod-wf", prefix="prod-") == "prod-wf"
    assert check_root_id("wf", prefix="prod:") == "prod:wf"


@pytest.mark.parametrize("prefix", ["a.b", "a.", "a:b", ":a", "a::"])
def test_separators_in_prefixes_are_refused(prefix: str) -> None:
    """Only a final colon is let through, for peers that join with one."""
    with pytest.raises(InvalidArgument, match=r"use e\.g\."):
        check_prefix(prefix)


def test_prefixes_with_other_characters_pass() -> None:
    """No separator of ours is added or demanded."""
    assert [check_prefix(prefix) for prefix in ("", "prod-", "prod:")] == ["", "prod-", "prod:"]


def test_child_ids_name_what_they_run() -> None:
    """A child's id is its parent's with one more segment."""
    assert child_id("crawl-1", "fetch-3", base="crawl-1") == "crawl-1.fetch-3"


def test_deep_ids_become_hashes_below_their_base() -> None:
    """Below 180 bytes nothing changes; above, an id is a hash of parent and segment, directly below the base."""
    parent = "root." + "x" * 166

    assert child_id(parent, "fetch-1", base="root") == f"{parent}.fetch-1"
    assert child_id(parent, "fetch-100", base="root") == f"root.~{hashed(parent, 'fetch-100')}"


def test_hashes_depend_on_where_the_parts_end() -> None:
    """Moving a character from one part to the next gives another hash."""
    assert hashed("ab", "c") != hashed("a", "bc")
    assert len(hashed("a")) == 22


def test_detached_calls_are_children_of_the_origin() -> None:
    """However deep the caller is, a detached call hangs below the origin."""
    assert re.fullmatch(r"root\.d[A-Za-z0-9_-]{22}", detached_id("root", "root.a-1.b-1", "log-1"))


def test_the_origin_is_the_first_segment() -> None:
    """An id without a dot is its own origin."""
    assert [origin_of(id) for id in ("a", "a.b.c")] == ["a", "a"]


def test_history_is_asked_once_for_each_record() -> None:
    """A record that a replay has taken is forgotten."""
    record = Promise(id="a.b", timeout_at=1, created_at=0)
    history = History.of([record])

    assert [history.take("a.b"), history.take("a.b"), len(history)] == [record, None, 0]


def test_history_counts_what_shares_the_branch() -> None:
    """Remote records are no part of what each lease brings along."""
    local, remote = (Promise(id=id, timeout_at=1, created_at=0) for id in ("a.b", "a.c"))

    assert History.of([local, remote], 1).local == 1


def promise(id: str, **tags: str) -> Promise:
    """A record with these tags, in the protocol's spelling."""
    names = {"parent": "resonate:parent", "real": PARENT_TAG, "detached": DETACHED_TAG, "lane": LANE_TAG}
    return Promise(id=id, timeout_at=1, created_at=0, tags={names[key]: value for key, value in tags.items()})


def test_descendants_are_found_by_their_parents() -> None:
    """A shortened id belongs to the call that made it, not to the one it hangs below; a detached call to nobody."""
    records = [
        promise("r.a", parent="r"),
        promise("r.a.b", parent="r.a"),
        promise("r.~h", parent="r", real="r.a.b"),
        promise("r.~h.c", parent="r.~h"),
        promise("r.~i", parent="r", real="r.other"),
        promise("r.d1", parent="r", real="r.a", detached="true"),
        promise("r.d1.e", parent="r.d1"),
        promise("r.a.untagged"),
    ]

    assert ["r.a.b", "r.a.untagged", "r.~h", "r.~h.c"] == [record.id for record in descendants_of("r.a", records)]


def test_names_must_be_unicode() -> None:
    """Half of a surrogate pair cannot be kept in a file or sent, wherever it stands."""
    with pytest.raises(InvalidId, match=r"the id .* is not Unicode"):
        check_root_id("a\ud800")


def test_history_knows_what_was_unfinished() -> None:
    """What is pending below an id is seen; what is pending beside it, or settled, is not."""
    settled = evolve(promise("r.b.c", parent="r.b"), state=PromiseState.RESOLVED, settled_at=1)
    history = History.of([promise("r.~h", real="r.a"), promise("r.aa", parent="r"), settled])

    assert [True, False, False] == [history.has_pending_below(id) for id in ("r.a", "r.aa", "r.b")]


def test_a_replay_has_asked_for_everything_below_a_call() -> None:
    """Each frame's history is over when each of its own records was taken, wherever a shortened id hangs."""
    history = History.of(
        [promise("r.a", parent="r"), promise("r.a.b", parent="r.a"), promise("r.~h", parent="r", real="r.a")]
    )

    def left() -> list[bool]:
        return [history.has_unasked(id) for id in ("r", "r.a", "r.a.b")]

    assert [True, True, False] == left()
    history.take("r.a")
    history.take("r.unknown")
    assert [False, True, False] == left()
    history.take("r.a.b")
    assert [False, True, False] == left()
    history.take("r.~h")
    assert [False, False, False] == left()


def test_what_is_forgotten_is_unfinished_and_not_asked_for() -> None:
    """It is found at every depth, the deepest first; settled records and detached subtrees are left out."""
    settled = evolve(promise("r.a.c", parent="r.a"), state=PromiseState.RESOLVED, settled_at=1)
    history = History.of(
        [
            promise("r.a", parent="r"),
            promise("r.a.b", parent="r.a"),
            settled,
            promise("r.d1", parent="r", real="r.a", detached="true"),
            promise("r.d1.e", parent="r.d1"),
            promise("r.z", parent="r"),
        ]
    )

    assert ["r.z", "r.a.b", "r.a"] == [record.id for record in history.forgotten("r")]
    assert ["r.a.b"] == [record.id for record in history.forgotten("r.a")]
    history.take("r.z")
    assert ["r.a.b", "r.a"] == [record.id for record in history.forgotten("r")]


def test_lanes_are_found_by_their_first_calls() -> None:
    """Each parent has the lanes that were put on record below it, by number; whoever takes one removes it."""
    first, second, other = (
        promise("r.a-1tp2", parent="r", lane="2"),
        promise("r.a-1tp10", parent="r", lane="10"),
        promise("r.a-1.b-1tp1", parent="r.a-1", lane="1"),
    )
    history = History.of([second, first, other, promise("r.a-2tp2", parent="r"), promise("r.x", parent="r", lane="x")])

    assert [(2, first), (10, second)] == [(number, lane.first) for number, lane in history.lanes("r").items()]
    history.take_lane("r", 2)
    assert [[10], [1], []] == [list(history.lanes(id)) for id in ("r", "r.a-1", "r.b")]
