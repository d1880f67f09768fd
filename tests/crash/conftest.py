"""Nothing from the environment may change what the corpus does."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESONATE_URL", "RESONATE_HOST", "RESONATE_PORT", "RESONATE_PREFIX", "RESONATE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
