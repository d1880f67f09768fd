"""What `docs/protocol.md` shows of the server's state machine is what the machine does."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from resonate_anyio._protocol import EMBEDDED, PromiseState, TaskState
from resonate_anyio.cli import _RULES

from .draw_server import PAGE, RULES, Transition, drawings, promise_transitions, task_transitions
from .drawing import drawn_into


def test_the_page_is_current() -> None:
    """The drawings in the page are those of the present code; `python -m tests.docs.draw_server` renews them."""
    page = PAGE.read_text(encoding="utf-8")

    assert drawn_into(page, drawings()).splitlines() == page.splitlines()


def test_every_drawing_is_in_the_page() -> None:
    """The page has a place for each drawing, so that none of them goes unseen."""
    page = PAGE.read_text(encoding="utf-8")

    assert [] == [name for name, drawing in drawings().items() if drawing not in page]


def test_every_server_is_in_the_table() -> None:
    """The table of rules has a column for each server that `resonate-anyio dev --rules` can follow."""
    assert dict(RULES) == _RULES


@pytest.mark.parametrize("name", RULES)
def test_the_states_do_not_depend_on_the_rules(name: str) -> None:
    """One diagram of promises and one of tasks is enough, because the transitions are the same by all rules."""
    assert list(promise_transitions(RULES[name])) == list(promise_transitions(EMBEDDED))
    assert list(task_transitions(RULES[name])) == list(task_transitions(EMBEDDED))


def test_every_state_can_be_reached() -> None:
    """Each state of a promise and of a task is in its diagram: some event leads to it."""
    assert {state.value for state in PromiseState} == _reached(promise_transitions(EMBEDDED))
    assert {state.value for state in TaskState} == _reached(task_transitions(EMBEDDED))


def _reached(transitions: Iterable[Transition]) -> set[str]:
    return {one.after for one in transitions if one.before != one.after}
