"""What the stores' tests write and read."""

from __future__ import annotations

from resonate_anyio._protocol import Change, Outcome, Promise, PutPromise, Response, View
from resonate_anyio.abc import Store


def outcome(*changes: Change) -> Outcome:
    """An outcome with these changes."""
    return Outcome(response=Response(status=200), changes=changes)


def write(store: Store, *changes: Change) -> None:
    """Write the changes in one transaction."""
    store.transact([lambda _: outcome(*changes)])


def put(store: Store, *ids: str) -> None:
    """Write a promise under each id, in one transaction."""
    write(store, *(PutPromise(Promise(id=id, timeout_at=1, created_at=0)) for id in ids))


def ids(store: Store) -> list[str]:
    """The ids of all promises."""
    return store.read(_ids)


def _ids(view: View) -> list[str]:
    return [promise.id for promise in view.search_promises(state=None, tags={}, after=None, limit=100_000)]
