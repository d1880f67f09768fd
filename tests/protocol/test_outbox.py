"""The queue of outgoing messages."""

from __future__ import annotations

from resonate_anyio._protocol import Execute, Outbox, Outgoing, Promise, Unblock


def unblock(id: str, address: str, created_at: int = 0) -> Outgoing:
    return Outgoing(address, Unblock(Promise(id=id, timeout_at=1, created_at=created_at)))


def test_newer_execute_wins() -> None:
    """A task waits at most once, with its newest version and address."""
    outbox = Outbox()
    outbox.add([Outgoing("a", Execute("t", 1)), Outgoing("b", Execute("t", 2))])

    assert [Outgoing("b", Execute("t", 2))] == outbox.messages()


def test_first_unblock_wins() -> None:
    """A promise waits at most once for each address."""
    outbox = Outbox()
    outbox.add([unblock("p", "a", 1), unblock("p", "a", 2), unblock("p", "b")])

    assert [unblock("p", "a", 1), unblock("p", "b")] == outbox.messages()
    assert 2 == len(outbox)


def test_order() -> None:
    """Executes come first, by task; then unblocks, by promise and address."""
    outbox = Outbox()
    outbox.add([unblock("q", "a"), unblock("p", "b"), unblock("p", "a")])
    outbox.add([Outgoing("z", Execute("t2", 0)), Outgoing("a", Execute("t1", 0))])

    assert [
        Outgoing("a", Execute("t1", 0)),
        Outgoing("z", Execute("t2", 0)),
        unblock("p", "a"),
        unblock("p", "b"),
        unblock("q", "a"),
    ] == outbox.take()
    assert [] == outbox.take()
