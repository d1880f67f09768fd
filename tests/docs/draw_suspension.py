"""The parts of `docs/suspension.md` that are made from the table of `Suspension`.

`python -m tests.docs.draw_suspension` writes them into the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getdoc
from typing import Final

from resonate_anyio._execution._phases import IGNORED, Action, Decision, Phase, Transition
from resonate_anyio._execution._suspension import Suspension

from .drawing import Arrow, drawn_diagram, drawn_table, write
from .pages import DOCS

PAGE: Final = DOCS / "suspension.md"


def name_of(action: Action) -> str:
    """Return the name of an action, as the page shows it."""
    return action.__name__.strip("_").replace("_", " ")


def actions() -> list[Action]:
    """Return all actions of the table, in the order of their first use."""
    transitions = (cell for row in Suspension.TABLE.values() for cell in row.values() if isinstance(cell, Transition))
    return list(dict.fromkeys(action for transition in transitions for action in transition.actions))


def _arrows() -> Iterator[Arrow]:
    yield None, Phase.HOT.value, "the task is acquired"
    for trigger, row in Suspension.TABLE.items():
        for phase, cell in row.items():
            if isinstance(cell, Transition) and cell.phase is not None:
                yield phase.value, cell.phase.value, _words(trigger.name)


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def _cell(decision: Decision) -> str:
    if not isinstance(decision, Transition):
        return "-" if decision is IGNORED else ""

    target = "stays" if decision.phase is None else f"→ **{decision.phase.value}**"
    return "; ".join([target, *map(name_of, decision.actions)])


def drawings() -> dict[str, str]:
    """Return everything that is drawn, by its name in the page."""
    return {
        "phases": drawn_diagram(_arrows()),
        "events": drawn_table(
            ["event", "meaning"], ([_words(trigger.name), trigger.value] for trigger in Suspension.TABLE)
        ),
        "transitions": drawn_table(
            ["event", *(phase.value for phase in Phase)],
            ([_words(trigger.name), *map(_cell, row.values())] for trigger, row in Suspension.TABLE.items()),
        ),
        "actions": drawn_table(
            ["action", "what it does"],
            ([name_of(action), (getdoc(action) or "").partition("\n\n")[0]] for action in actions()),
        ),
    }


if __name__ == "__main__":
    write(PAGE, drawings())
