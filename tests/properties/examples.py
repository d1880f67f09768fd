"""How many examples a property has, and what chooses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import Phase, seed, settings

from ..chosen import CHOSEN

F = TypeVar("F", bound=Callable[..., Any])


def examples(count: int) -> Callable[[F], F]:
    """Give a property `count` examples as a whole, which are the same each time; in a run of samples, a part as large.

    The seed of the run chooses those of a sample, and those that `--campaigns N` tries.
    """
    chosen = settings(
        max_examples=CHOSEN.cases(count),
        derandomize=CHOSEN.campaigns == 1,
        print_blob=True,
        # The phase that explains a failure takes longer than all others.
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )

    def decorate(test: F) -> F:
        given = test if CHOSEN.campaigns == 1 else seed(f"{CHOSEN.seed} {test.__name__}")(test)
        return chosen(given)

    return decorate
