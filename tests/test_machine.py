"""Agents, clients and bad luck in any order on a real server; after every step the server holds what the oracle says.

Lost replies, zombies, crashes and repeated calls are ordinary steps here. At the end everybody is gone, one agent comes,
and every task that is not finished is finished by it: nothing was lost, and nothing is left over.
"""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.lua.conftest import leaked_keys
from tests.lua.shard import Claimed, New, Outcome, Shard, complete
from tests.oracle import LEADS, OPEN, Entry, Letter, Oracle
from tests.servers import Server

AGENTS = ("a.1", "b.2")
STREAM = ("tasks:x",)
HOUR = 3_600_000

agents = st.sampled_from(AGENTS)
ids = st.sampled_from(("t0", "t1", "t2", "t3", "t4", "t5"))
picks = st.integers(0, 30)
counts = st.integers(1, 3)
rarely = st.sampled_from([False] * 9 + [True])
verbs = st.sampled_from(sorted(LEADS))


class Machine(RuleBasedStateMachine):
    """One stream. `hands`: every item that any agent ever got, so that any of them may be settled late, or twice."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.shard = Shard(url, f"m-{secrets.token_hex(5)}")
        self.oracle = Oracle(self.shard.raw_word("tasks:x"))
        self.hands: list[tuple[str, Claimed]] = []
        self.reads: list[tuple[str, Entry]] = []
        self.known: set[str] = set()
        self.letters: list[Letter] = []
        self.delays = 0

    @initialize()
    def begin(self) -> None:
        self.shard.open("a.1")
        for id in ("t0", "t1", "t2"):
            assert self.shard.enqueue(New(id, "1")) == [self.oracle.enqueue(id, "1", later=False, late=False)]
        self.fill()
        self.work("a.1")

    def later(self) -> int:
        """Longer than any before, so that timers have an order that does not depend on the millisecond."""
        self.delays += 1
        return HOUR + 1000 * self.delays

    # -- clients

    @rule(id=ids, payload=st.sampled_from("112"), later=rarely, late=rarely)
    def enqueue(self, id: str, payload: str, later: bool, late: bool) -> None:
        task = New(id, payload, when=f"+{self.later()}" if later else "", extra={"deadline": "1"} if late else {})
        assert self.shard.enqueue(task) == [self.oracle.enqueue(id, payload, later=later, late=late)]

    @rule(id=st.none() | ids, late=rarely)
    def raw_xadd(self, id: str | None, late: bool) -> None:
        self.shard.raw(payload="3", **({"id": id} if id else {}), **({"deadline": "1"} if late else {}))
        self.oracle.stream.append(Entry(id or "", "3", late))

    @rule(pick=picks)
    @precondition(lambda self: self.oracle.tasks)
    def cancel(self, pick: int) -> None:
        id = sorted(self.oracle.tasks)[pick % len(self.oracle.tasks)]
        assert self.shard.cancel(id) == [self.oracle.cancel(id)]

    @rule(pick=picks)
    @precondition(lambda self: self.oracle.tasks)
    def retry(self, pick: int) -> None:
        id = sorted(self.oracle.tasks)[pick % len(self.oracle.tasks)]
        assert self.shard.retry(id) == self.oracle.retry(id)

    @rule(pick=picks)
    @precondition(lambda self: self.letters)
    def replay(self, pick: int) -> None:
        letter = self.letters[pick % len(self.letters)]
        assert self.shard.replay(letter.real, id=letter.id) == self.oracle.retry(letter.id, letter)

    # -- agents

    @rule(me=agents, count=counts)
    def read(self, me: str, count: int) -> None:
        """The blocking read; whether its reply was lost is seen in whether the entries are ever given to a claim."""
        self.reads += [(me, entry) for entry in self.oracle.read(me, count)]
        self.shard.read(me, count=count)

    @rule(me=agents)
    def work(self, me: str) -> None:
        """As in good times: a claim, and its reply arrives."""
        self.claimed(me, 2, False, [], 1)

    @rule(
        me=agents,
        count=counts,
        given=st.booleans(),
        dead=st.lists(agents, max_size=2, unique=True),
        lost=st.integers(0, 3),
    )
    def claim(self, me: str, count: int, given: bool, dead: list[str], lost: int) -> None:
        """With `lost` 0 the reply is thrown away: nobody knows what was claimed."""
        self.claimed(me, count, given, [agent for agent in dead if agent != me], lost)

    @rule(me=agents)
    def claim_again(self, me: str) -> None:
        """The first reply was lost, and the same call is repeated."""
        self.claimed(me, 2, True, [], 0)
        self.fill()
        self.claimed(me, 2, True, [], 1)

    @rule(victim=agents)
    def take_over(self, victim: str) -> None:
        """An agent dies, or stalls, and the other one gets what it had."""
        self.crash(victim)
        self.claimed(AGENTS[1 - AGENTS.index(victim)], 2, False, [victim], 1)

    def claimed(self, me: str, count: int, given: bool, dead: list[str], lost: int) -> None:
        mine = [entry for owner, entry in self.reads if owner == me] if given else []
        expected = self.oracle.claim(me, count, mine, dead)
        got = self.shard.claim(
            me,
            count,
            streams=STREAM,
            given=[("tasks:x", one.real) for one in mine],
            orphans=[("tasks:x", one) for one in dead],
        )
        assert [(one.id, one.attempt, one.failures, one.deaths) for one in got] == expected
        if lost:
            self.hands += [(me, one) for one in got]

    @rule(pick=st.integers(0, 5), verb=verbs)
    @precondition(lambda self: self.hands)
    def settle(self, pick: int, verb: str) -> None:
        """By its owner, by a zombie, the first time or again: `hands` are never emptied."""
        self.settled(self.hands[-1 - pick % len(self.hands)], verb)

    @rule(verb=verbs)
    @precondition(lambda self: self.hands)
    def settle_the_newest_twice(self, verb: str) -> None:
        self.settled(self.hands[-1], verb)
        self.fill()
        self.settled(self.hands[-1], verb)

    @rule(pick=picks, other=agents, verb=verbs)
    @precondition(lambda self: self.hands)
    def settle_for_another(self, pick: int, other: str, verb: str) -> None:
        self.settled((other, self.hands[-1 - pick % len(self.hands)][1]), verb)

    @rule(pick=picks, verb=verbs)
    def settle_as_a_zombie(self, pick: int, verb: str) -> None:
        """An earlier attempt at a task that runs: of another agent, or of the same one."""
        late = [hand for hand in self.hands if self.superseded(*hand)]
        if late:
            self.settled(late[pick % len(late)], verb)

    def superseded(self, me: str, one: Claimed) -> bool:
        task = self.oracle.tasks.get(one.id)
        current = task and task.entry and (task.agent, task.attempt, task.entry.real)
        return bool(task and task.state == "running" and current != (me, one.attempt, one.entry))

    def settled(self, hand: tuple[str, Claimed], verb: str) -> None:
        me, one = hand
        b: Any = {"fail": self.later(), "again": self.later(), "dead": "attempts"}.get(verb, HOUR)
        expected = self.oracle.settle(me, one.id, one.entry, one.attempt, verb)
        assert self.shard.settle(me, Outcome(one, verb, "0", b)) == [expected]

    @rule(me=agents, knows=st.booleans())
    def renew(self, me: str, knows: bool) -> None:
        """An agent that does not know what it holds (its replies were lost) hands it back."""
        held = [one for owner, one in self.hands if owner == me] if knows else []
        expected = self.oracle.renew(me, [(one.entry, one.id, one.attempt) for one in held])
        assert self.shard.renew(me, held, streams=STREAM) == expected

    @rule(me=agents)
    def hand_back(self, me: str) -> None:
        """Half a lease after replies were lost."""
        self.crash(me)
        assert self.shard.renew(me, streams=STREAM) == self.oracle.renew(me, [])

    # -- anybody

    @rule(limit=counts)
    def fire(self, limit: int) -> None:
        assert self.shard.fire(ahead=1000 * HOUR, limit=limit)[0] == self.oracle.fire(limit)

    @rule(live=st.lists(agents, max_size=2, unique=True))
    def sweep(self, live: list[str]) -> None:
        expected = {("tasks:x", entry.owner) for entry in self.oracle.stream if entry.owner and entry.owner not in live}
        assert set(self.shard.sweep(*live, streams=STREAM, stall=HOUR)[0]) == expected

    # -- bad luck

    @rule(agent=agents)
    def crash(self, agent: str) -> None:
        """Or a stall: it may come back as a zombie at any time."""
        self.shard.crash(agent)
        for entry in self.oracle.of(agent):
            entry.aged = True

    @rule(id=ids)
    def deadline_passes(self, id: str) -> None:
        """For whatever is put into the stream from now on."""
        task = self.oracle.tasks.get(id)
        if task and task.state in OPEN:
            self.shard.redis.hset(self.shard.key(f"task:{id}"), "deadline", "1")
            task.late = True

    @rule(pick=picks)
    @precondition(lambda self: self.oracle.tasks)
    def retention_ends(self, pick: int) -> None:
        id = sorted(self.oracle.tasks)[pick % len(self.oracle.tasks)]
        if self.oracle.tasks[id].state not in OPEN:
            self.shard.redis.delete(self.shard.key(f"task:{id}"))
            del self.oracle.tasks[id]

    @rule()
    def scripts_are_forgotten(self) -> None:
        self.shard.redis.script_flush()

    # -- what must be true at any time

    def fill(self) -> None:
        """Tell the oracle the ids that the server gave."""
        for entry, real in zip(self.oracle.stream, self.shard.entries(), strict=True):
            entry.real = entry.real or real
            assert entry.real == real
        for letter, real in zip(self.oracle.letters, self.shard.entries("dead:x"), strict=True):
            letter.real = real
            if letter not in self.letters:
                self.letters.append(letter)

    @invariant()
    def the_server_holds_what_the_oracle_says(self) -> None:
        self.fill()
        oracle, key = self.oracle, self.shard.key
        self.known |= set(oracle.tasks) | {oracle.id_of(entry) for entry in oracle.stream}
        names = sorted(self.known)
        with self.shard.redis.pipeline(transaction=False) as pipe:
            for id in names:
                pipe.hmget(key(f"task:{id}"), "state", "payload", "agent", "attempt", "failures", "deaths", "entry")
                pipe.pttl(key(f"task:{id}"))
            pipe.zrange(key("due"), 0, -1)
            found = pipe.execute()
        assert found.pop() == [f"task:{id}" for id in oracle.due]
        for id, record, ttl in zip(names, found[::2], found[1::2], strict=True):
            task = oracle.tasks.get(id)
            if task is None:
                assert record[0] is None, f"{id} has a record"
                continue
            state, payload, agent, attempt, failures, deaths, entry = record
            assert (state, payload, agent or "") == (task.state, task.payload, task.agent)
            assert (int(attempt or 0), int(failures or 0), int(deaths or 0)) == (
                task.attempt,
                task.failures,
                task.deaths,
            )
            assert (ttl > 0) == (state not in OPEN)
            if state in ("queued", "running"):
                assert task.entry in oracle.stream, f"{id} is {state} and nothing will ever bring it home"
                assert entry == task.entry.real if task.entry else False
        assert self.shard.pending() == {entry.real: entry.owner for entry in oracle.stream if entry.owner}

    def teardown(self) -> None:
        try:
            self.everything_comes_home()
            assert leaked_keys(self.shard) == []
        finally:
            for key in self.shard.redis.scan_iter(self.shard.prefix + "*", count=10_000):
                self.shard.redis.unlink(key)
            self.shard.close()

    def everything_comes_home(self) -> None:
        for _ in range(12):
            for agent in (*AGENTS, "last.9"):
                self.shard.crash(agent)
            self.shard.fire(ahead=1000 * HOUR)
            orphans, _ = self.shard.sweep("last.9", streams=STREAM, stall=HOUR)
            got = self.shard.claim("last.9", 100, streams=STREAM, orphans=orphans)
            assert set(self.shard.settle("last.9", *(complete(one) for one in got))) <= {"ok"} if got else True
            self.shard.renew("last.9", streams=STREAM)
            if not self.shard.entries() and not self.shard.due():
                break
        assert self.shard.entries() == {} == self.shard.pending()
        assert self.shard.due() == {}
        for key in self.shard.redis.scan_iter(self.shard.key("task:*"), count=10_000):
            assert self.shard.redis.hget(key, "state") not in OPEN, key


def run(url: str, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        lambda: Machine(url),  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_any_order_of_steps(each_server: Server) -> None:
    run(each_server.url, examples=150, steps=40)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_order_of_many_steps(each_server: Server) -> None:
    run(each_server.url, examples=1000, steps=100)
