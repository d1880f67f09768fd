"""Whatever the instant at which a program is interrupted, what comes of its workflow is the same.

KeyboardInterrupt or SystemExit comes instead of what a task has waited for, in code of the program's and in tasks of
the engine's. A failure names the workflow, the interruption and what is wrong. `--campaigns all` tries every one there
is; otherwise each workflow has two, chosen by `--seed`.
"""

from __future__ import annotations

import pytest

from resonate_anyio._execution import _execution

from ..chosen import CHOSEN
from .corpus import CORPUS
from .interrupts import InterruptTrial, interrupt_everywhere, interrupt_somewhere
from .scenarios import Scenario

pytestmark = [
    pytest.mark.embedded("each life has an event loop of its own"),
    # What has not begun when a program ends never does.
    pytest.mark.filterwarnings("ignore:.* was never awaited:RuntimeWarning"),
    # What has not ended by then is collected some day, without a loop to end it in.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <coroutine:pytest.PytestUnraisableExceptionWarning"),
]

each_scenario = pytest.mark.parametrize("scenario", CORPUS.values(), ids=CORPUS)
each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@each_scenario
@each_backend
@pytest.mark.timeout(600 if CHOSEN.whole else 120)
def test_interrupt(scenario: Scenario, backend: str) -> None:
    """Nothing that an interrupt causes is on record; the next start ends as without it; no finished leaf runs again."""
    trial = InterruptTrial(scenario, backend)
    if CHOSEN.whole:
        interrupt_everywhere(trial)
    else:
        interrupt_somewhere(trial, CHOSEN.chance())
    assert "" == "\n".join(trial.complaints)


@each_backend
def test_broken_engine(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that does not look for interrupts is found out."""
    monkeypatch.setattr(_execution.Execution, "interrupt", lambda _, __: None)
    monkeypatch.setattr(_execution, "interrupt_among", lambda _: None)
    trial = InterruptTrial(CORPUS["plain_group"], backend)
    trial.without_interrupt()
    for interruption in trial.interruptions()[:16]:
        trial.interrupt_at(interruption)
    assert any("was recorded as cancelled" in text for text in trial.complaints), trial.complaints
