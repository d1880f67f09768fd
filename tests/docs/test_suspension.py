"""What `docs/suspension.md` shows of the phases of an execution is in the code."""

from __future__ import annotations

from inspect import getdoc
from typing import Final

from resonate_anyio._execution._phases import Phase, Trigger
from resonate_anyio._execution._suspension import Suspension

from .draw_suspension import PAGE, actions, drawings, name_of
from .drawing import drawn_into
from .pages import table

_PAGE: Final = PAGE.read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    """The drawings in the page are those of the present code; `python -m tests.docs.draw_suspension` renews them."""
    assert drawn_into(_PAGE, drawings()).splitlines() == _PAGE.splitlines()


def test_every_drawing_is_in_the_page() -> None:
    """The page has a place for each drawing, so that none of them goes unseen."""
    assert [] == [name for name, drawing in drawings().items() if drawing not in _PAGE]


def test_the_tables_have_everything() -> None:
    """The tables have a row for each event, and a column or a row for each phase."""
    phases, events, transitions = (table(_section(name)) for name in ("Phases", "Events", "Transitions"))

    assert [trigger.value for trigger in Trigger] == [row["meaning"] for row in events]
    assert [row["event"] for row in events] == [row["event"] for row in transitions]
    assert ["event", *(phase.value for phase in Phase)] == list(transitions[0])
    assert [phase.value for phase in Phase] == [row["phase"] for row in phases]


def _section(heading: str) -> str:
    return _PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_action_is_described() -> None:
    """Each action has a docstring and a name of its own, and is a method of `Suspension`."""
    assert [] == [action for action in actions() if not getdoc(action)]
    assert len(actions()) == len({name_of(action) for action in actions()})
    assert [] == [action for action in actions() if getattr(Suspension, action.__name__) is not action]
