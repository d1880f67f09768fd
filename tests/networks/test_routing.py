"""Who receives which message."""

from __future__ import annotations

import pytest

from resonate_anyio._embedded._router import Mailbox, Router
from resonate_anyio._protocol import Execute, Outgoing, Promise, Unblock

from .helpers import name_of, worker


def send(router: Router, address: str, *ids: str) -> None:
    router.deliver(Outgoing(address, Execute(id, 0)) for id in ids)


def unread(mailbox: Mailbox) -> list[str]:
    return [name_of(outgoing.message) for outgoing in mailbox.unread()]


@pytest.fixture
def router() -> Router:
    return Router()


async def test_any_takes_turns(router: Router) -> None:
    """Messages for any of a group go round its connections, and to nobody else."""
    a, b, other = (router.join(identity) for identity in (worker("a"), worker("b"), worker("c", "other")))
    send(router, "poll://any@g", "1", "2", "3")
    assert (["1", "3"], ["2"], []) == (unread(a), unread(b), unread(other))
    for mailbox in (a, b, other):
        mailbox.close()


async def test_a_preferred_connection_has_it_if_it_is_there(router: Router) -> None:
    """`any@group/pid` goes to that pid, and to any of the group once it has left."""
    a, b = router.join(worker("a")), router.join(worker("b"))
    send(router, "poll://any@g/b", "1", "2")
    assert ([], ["1", "2"]) == (unread(a), unread(b))
    b.close()
    send(router, "poll://any@g/b", "3")
    assert ["3"] == unread(a)
    a.close()


async def test_uni_waits_for_its_connection(router: Router) -> None:
    """`uni@group/pid` goes to nobody but that pid; an `execute` waits for it, the newest of each task."""
    a = router.join(worker("a"))
    router.deliver([Outgoing("poll://uni@g/b", Execute("t", version)) for version in (0, 1)])
    assert [] == unread(a)
    b = router.join(worker("b"))
    assert [Execute("t", 1)] == [outgoing.message for outgoing in b.unread()]
    a.close()
    b.close()


async def test_what_nobody_can_receive_waits_for_its_group(router: Router) -> None:
    """An `execute` for a group without connections reaches the first that comes, an `unblock` is dropped."""
    send(router, "poll://any@g", "2", "1")
    router.deliver([Outgoing("poll://any@g", Unblock(Promise(id="p", timeout_at=0, created_at=0)))])
    other = router.join(worker("c", "other"))
    a = router.join(worker("a"))
    assert ([], ["1", "2"]) == (unread(other), unread(a))
    a.close()
    other.close()


async def test_the_oldest_of_one_name_has_it(router: Router) -> None:
    """Of several connections with one pid the oldest receives what is for that pid."""
    first, second = router.join(worker("a")), router.join(worker("a"))
    send(router, "poll://uni@g/a", "1")
    assert (["1"], []) == (unread(first), unread(second))
    first.close()
    second.close()


@pytest.mark.parametrize("address", ["https://example.com", "poll://uni@g", "nonsense"])
async def test_addresses_of_no_connection_reach_nobody(address: str, router: Router) -> None:
    """What is for elsewhere, or for nobody, is not given to anybody."""
    a = router.join(worker("a"))
    send(router, address, "1")
    assert [] == unread(a)
    a.close()


async def test_closing_hands_on_what_was_not_read(router: Router) -> None:
    """A connection that stops reading leaves its unread messages to the others, once."""
    a, b = router.join(worker("a")), router.join(worker("b"))
    send(router, "poll://any@g/a", "1", "2")
    assert "1" == name_of(await a.receive())
    await a.aclose()
    await a.aclose()
    assert ["2"] == unread(b)
    b.close()


async def test_a_full_mailbox_is_passed_over(router: Router) -> None:
    """What has no room goes to another of the group; where nobody has room, tasks wait until somebody has read all."""
    small, other = router.join(worker("a"), room=2), router.join(worker("b"))
    send(router, "poll://any@g/a", "1", "2", "3")
    assert ["3"] == unread(other)

    other.close()
    send(router, "poll://any@g", "4", "5")
    router.deliver([Outgoing("poll://any@g", Unblock(Promise(id="p", timeout_at=0, created_at=0)))])
    assert [Execute(id, 0) for id in ("1", "2", "4", "5")] == [await small.receive() for _ in range(4)]
    assert [] == unread(small)
    small.close()


async def test_held_messages(router: Router) -> None:
    """While they are held all messages wait, those for nobody too; then each goes where its address means."""
    a = router.join(worker("a"))
    router.hold()
    send(router, "poll://any@g", "1")
    send(router, "http://h", "2")
    b = router.join(worker("b"))
    assert ([], []) == (unread(a), unread(b))
    assert 2 == len(router.waiting)

    router.release()
    assert ["1"] == unread(a) + unread(b)
    assert 0 == len(router.waiting)
    a.close()
    b.close()


async def test_forgetting(router: Router) -> None:
    """What waits and what was not read is gone."""
    a = router.join(worker("a"))
    send(router, "poll://any@g", "1")
    send(router, "poll://any@other", "2")
    router.forget()
    c = router.join(worker("c", "other"))
    assert ([], []) == (unread(a), unread(c))
    a.close()
    c.close()
