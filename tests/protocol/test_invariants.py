"""Whatever is asked, in whatever order, the state stays sound."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from resonate_anyio._protocol import (
    EMBEDDED,
    RELEASE,
    SNAPSHOT,
    Promise,
    PromiseCreate,
    PromiseSettle,
    PromiseState,
    RegisterCallback,
    RegisterListener,
    Request,
    Rules,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskHalt,
    TaskHeartbeat,
    TaskRef,
    TaskRelease,
    TaskState,
    TaskSuspend,
    View,
)
from resonate_anyio.stores import MemoryStore

from .server import Server

GROUP = {"resonate:target": "poll://any@g"}
TAGS: tuple[dict[str, str], ...] = (
    {},
    GROUP,
    GROUP,
    {"resonate:timer": "true"},
    {**GROUP, "resonate:branch": "r", "resonate:delay": "50"},
)
DEMANDING = ("task.acquire", "task.suspend", "task.fulfill", "task.fence", "task.continue", "promise.register_callback")
SETTLED = (PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.CANCELED)


class Client:
    """Asks for things at random, half of them sensible. Ids grow old and are replaced, so that all ages meet."""

    def __init__(self, seed: int, server: Server) -> None:
        self.random = Random(seed)  # noqa: S311 - no secret
        self.server = server
        self.now = 0
        self.born = 0
        self.ids: list[str] = []

    def request(self) -> Request:
        self.now += self.random.choice((0, 1, 20, 300, 300, 2_000))
        while len(self.ids) < 5:
            self.ids.append(f"r.{self.born}")
            self.born += 1

        if self.random.random() < 0.03:
            self.ids.pop(0)

        one, other = self.random.choices(self.ids, k=2)
        ask = self.random.choice([self.promises, self.tasks, self.tasks, self.holders, self.holders])
        return ask(one, other, self.version(one))

    def version(self, id: str) -> int:
        task = self.server.store.read(lambda view: view.task(id))
        return self.random.randrange(3) if task is None or self.random.random() < 0.1 else task.version

    def promises(self, one: str, other: str, _: int) -> Request:
        asked: list[Request] = [
            self.create(one),
            self.create(one),
            self.settle(one),
            RegisterCallback(awaited=one, awaiter=other),
            RegisterListener(awaited=one, address="http://h"),
        ]
        return self.random.choice(asked)

    def create(self, id: str) -> PromiseCreate:
        deadline = self.now + self.random.choice((-1, 3_000, 10**6, 10**6, 10**6, 10**6))
        return PromiseCreate(id=id, timeout_at=max(deadline, 0), tags=self.random.choice(TAGS))

    def settle(self, id: str) -> PromiseSettle:
        return PromiseSettle(id=id, state=self.random.choice(SETTLED))

    def tasks(self, one: str, other: str, version: int) -> Request:
        awaited = tuple({other, self.random.choice(self.ids)} - {one}) or ("r.x",)
        ttl = self.random.choice((10, 5_000, 60_000))
        asked: list[Request] = [
            TaskCreate(pid="w", ttl=ttl, action=self.create(one)),
            TaskAcquire(id=one, version=version, pid="w", ttl=ttl),
            TaskAcquire(id=one, version=version, pid="w", ttl=ttl),
            TaskSuspend(id=one, version=version, awaited=awaited, awaiters=(one,) * len(awaited)),
            TaskSuspend(id=one, version=version, awaited=awaited, awaiters=(one,) * len(awaited)),
            TaskRelease(id=one, version=version),
        ]
        return self.random.choice(asked)

    def holders(self, one: str, other: str, version: int) -> Request:
        actions: list[PromiseCreate | PromiseSettle] = [self.create(other), self.settle(other)]
        action = self.random.choice(actions)
        asked: list[Request] = [
            TaskFence(id=one, version=version, action=action, action_id=other),
            TaskFulfill(id=one, version=version, action=self.settle(one)),
            TaskHeartbeat(pid="w", tasks=(TaskRef(one, version),)),
            TaskHalt(id=one),
            TaskContinue(id=one),
            TaskContinue(id=one),
        ]
        return self.random.choice(asked)


def check(view: View) -> None:
    for promise in view.search_promises(state=None, tags={}, after=None, limit=1_000):
        check_pair(view, promise)

    for callback in view.all_callbacks():
        awaited, awaiter = view.promise(callback.awaited), view.promise(callback.awaiter)
        assert awaited is not None
        assert awaiter is not None
        assert callback.ready is not awaited.pending, callback
        assert awaiter.pending, callback

    for id, address in view.all_listeners():
        listened = view.promise(id)
        assert listened is not None
        assert listened.pending, address


def check_pair(view: View, promise: Promise) -> None:
    task = view.task(promise.id)
    if task is None:
        assert promise.target is None
        return

    held, timed = task.state is TaskState.ACQUIRED, task.state in {TaskState.PENDING, TaskState.ACQUIRED}
    assert promise.target is not None
    assert promise.pending is (task.state is not TaskState.FULFILLED)
    assert (held, held, timed) == (task.ttl is not None, task.pid is not None, task.due_at is not None)
    if task.state is TaskState.SUSPENDED:
        # Something is still to come that wakes it.
        assert {False} == {callback.ready for callback in view.awaited(task.id)}


@pytest.mark.parametrize("rules", [RELEASE, SNAPSHOT, EMBEDDED])
def test_state_is_sound(rules: Rules) -> None:
    """Promises and tasks end together, timers belong to states, callbacks to what is pending, nobody sleeps on."""
    successes: Counter[str] = Counter()
    for seed in range(10):
        server = Server(MemoryStore, rules)
        client = Client(seed, server)
        for _ in range(600):
            request = client.request()
            before = versions(server)
            if server.ask(client.now, request).status in {200, 300}:
                successes[request.kind] += 1

            raised = {id for id, version in versions(server).items() if version > before.get(id, 0)}
            assert not raised or isinstance(request, TaskAcquire | TaskCreate)
            if client.random.random() < 0.2:
                server.tick(client.now, renew=frozenset(client.random.choice(([], ["w"]))))

            server.store.read(check)

    # Otherwise nothing was tested.
    assert [] == [kind for kind in DEMANDING if successes[kind] < 10]


def versions(server: Server) -> dict[str, int]:
    return server.store.read(
        lambda view: {task.id: task.version for task in view.search_tasks(state=None, after=None, limit=1_000)}
    )
