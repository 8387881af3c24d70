"""run_start, the claim of wake-ups, run_deliver, run_act: every arrow of a run's states, and every refused one."""

from __future__ import annotations

import json

import pytest

from tests.lua.run_shard import CLIENT, Doing, Runs, child, task, timer
from tests.lua.shard import KEEP, POISON, Shard


@pytest.fixture
def runs(shard: Shard) -> Runs:
    return Runs(shard)


# -- start


def test_a_new_run_is_queued_with_one_wake_up_and_a_journal_of_its_start(runs: Runs) -> None:
    assert runs.start(input='{"n":1}', signals=["go"], waiters="c-9") == "ok"
    head = runs.head()
    assert (head["state"], head["capability"], head["version"], head["waiters"]) == ("queued", "w", "1", "c-9")
    assert len(runs.wakes()) == 1
    first, second = runs.journal()
    assert (first["what"], first["workflow"], first["version"], first["input"]) == ("start", "w", 1, {"n": 1})
    assert second == {"what": "signal", "name": "go", "payload": None, "at": first["at"]}
    assert runs.shard.ttl("run:r") == -1


def test_a_later_version_has_a_stream_of_its_own(runs: Runs) -> None:
    runs.start(version=2)
    assert len(runs.wakes(stream="runs:w@2")) == 1
    assert runs.claim() == []
    assert runs.take(stream="runs:w@2").id == "r"


def test_a_known_id_is_attached_to_or_refused(runs: Runs) -> None:
    runs.start()
    before = runs.shard.dump()
    assert runs.start() == "attached queued"
    assert runs.start(policy="fail") == "conflict queued"
    assert runs.shard.dump() == before
    one = runs.take()
    runs.do(one, "succeeded", "1")
    assert runs.start() == "attached succeeded"
    assert runs.start(policy="fail") == "conflict succeeded"


def test_replacing_ends_the_old_run_and_its_executor_is_fenced(runs: Runs) -> None:
    one = runs.parked("r", task(), timer(runs.shard.now() + 99_999), child())
    runs.signal()
    one = runs.take("bob.2")
    assert runs.start(policy="replace", input='{"n":2}') == "ok"
    assert runs.state() == "queued"
    assert len(runs.wakes()) == 1
    assert runs.open() == {}
    assert runs.shard.state("r:x.0") == "cancelled"
    assert runs.shard.due() == {}
    assert runs.told("r:k.0") == [("cancel", "its parent")]
    assert runs.do(one, "succeeded", "1", agent="bob.2", seen=1) == "fenced"
    assert runs.journal()[0]["generation"] == 1
    again = runs.take()
    assert again.attempt > one.attempt


def test_replacing_an_ended_run(runs: Runs) -> None:
    runs.do(runs.running(), "failed", "boom")
    assert runs.start(policy="replace") == "ok"
    assert runs.shard.ttl("run:r") == -1
    assert "error" not in runs.head()
    runs.take()


# -- claim


def test_a_wake_up_is_claimed_with_its_journal(runs: Runs) -> None:
    runs.start(signals=["go"])
    one = runs.take()
    assert (one.id, one.attempt, one.deaths) == ("r", 1, 0)
    assert [json.loads(text)["what"] for text in one.journal] == ["start", "signal"]
    head = runs.head()
    assert (head["state"], head["agent"], head["client"], head["attempt"]) == ("running", "ann.1", CLIENT, "1")
    assert runs.wakes() == [one.entry]
    assert runs.claim() == []
    assert runs.claim("bob.2") == []


def test_an_orphan_is_taken_over_with_another_attempt(runs: Runs) -> None:
    one = runs.running()
    runs.shard.crash("ann.1", "runs:w")
    two = runs.take("bob.2", dead="ann.1")
    assert (two.entry, two.attempt, two.deaths) == (one.entry, 2, 1)
    assert runs.do(one, "succeeded", "1") == "fenced"
    assert runs.do(two, records=[{"what": "patched", "path": "p", "after": 0}], agent="bob.2") == "ok"
    assert "deaths" not in runs.head(), "whoever comes forward is no reason to give up"


def test_a_run_that_kills_every_agent_is_stuck(runs: Runs) -> None:
    runs.running()
    agents = [f"agent.{n}" for n in range(2 * POISON + 1)]
    before = "ann.1"
    for agent in agents:
        runs.shard.crash(before, "runs:w")
        if not runs.claim(agent, dead=before):
            break
        before = agent
    assert runs.state() == "stuck"
    assert "died" in runs.head()["error"]
    assert runs.wakes() == []
    assert runs.shard.pending("runs:w") == {}
    assert runs.act("resume") == "ok"
    assert runs.take().deaths == 0


def test_entries_of_no_run_and_old_ones_are_taken_away(runs: Runs) -> None:
    runs.parked()
    runs.shard.raw("runs:w", id="r")
    runs.shard.raw("runs:w", id="nobody")
    runs.shard.raw("runs:w", some="thing")
    assert runs.claim() == []
    assert runs.skipped == 3
    assert runs.shard.entries("runs:w") == {} == runs.shard.pending("runs:w")
    assert runs.state() == "parked"


def test_a_bare_xadd_starts_a_run(runs: Runs) -> None:
    runs.shard.raw("runs:w", id="mine", payload='{"n":1}')
    assert runs.claim() == [], "the group is made at the first claim"
    one = runs.take()
    assert (one.id, one.attempt) == ("mine", 1)
    assert runs.journal("mine")[0]["input"] == {"n": 1}
    assert runs.wakes("mine") == [one.entry]
    assert runs.do(one, "succeeded", "1") == "ok"


def test_a_given_entry_and_one_that_is_not_ours(runs: Runs) -> None:
    runs.start()
    (entry,) = runs.wakes()
    runs.shard.read("ann.1", "runs:w")
    assert runs.claim("bob.2", given=[entry]) == []
    assert runs.take(given=[entry]).entry == entry


# -- deliver


def test_a_signal_wakes_a_parked_run_once(runs: Runs) -> None:
    runs.parked()
    assert runs.signal("go") == "ok"
    assert runs.state() == "queued"
    assert len(runs.wakes()) == 1
    assert runs.signal("go") == "ok"
    assert len(runs.wakes()) == 1
    assert runs.told() == [("signal", "go"), ("signal", "go")]


def test_a_signal_nudges_whoever_executes(runs: Runs) -> None:
    runs.running()
    assert runs.signal("go", payload='{"n":1}') == "ok"
    (nudge,) = runs.shard.replies(CLIENT)
    assert (nudge["id"], nudge["state"]) == ("run r", "nudge 2")
    assert json.loads(nudge["value"])["payload"] == {"n": 1}
    assert runs.state() == "running"
    assert len(runs.wakes()) == 1


def test_a_signal_with_an_id_counts_once_also_after_a_new_beginning(runs: Runs) -> None:
    one = runs.running()
    assert runs.signal(unique="s1") == "ok"
    assert runs.signal(unique="s1") == "duplicate"
    start = {"what": "start", "workflow": "w", "version": 1, "input": {}}
    assert runs.do(one, "again", records=[start]) == "ok"
    assert runs.signal(unique="s1") == "duplicate"
    assert runs.told() == []


def test_nothing_is_delivered_to_what_has_ended_or_never_was(runs: Runs) -> None:
    assert runs.signal() == "missing"
    assert runs.cancel() == "missing"
    runs.do(runs.running(), "succeeded", "1")
    before = runs.shard.dump()
    assert runs.signal(unique="s1") == "closed"
    assert runs.signal(unique="s1") == "closed", "what was refused is not a duplicate"
    assert runs.cancel() == "closed"
    assert runs.shard.dump() == before


def test_a_cancellation_is_a_record_like_others(runs: Runs) -> None:
    runs.parked()
    assert runs.cancel() == "ok"
    assert runs.told() == [("cancel", "tests")]
    assert len(runs.wakes()) == 1


# -- act


@pytest.mark.parametrize("close", ["cancel", "terminate", "abandon"])
def test_terminating_takes_back_what_is_open(runs: Runs, close: str) -> None:
    runs.shard.running("other")
    runs.parked("r", task(), timer(runs.shard.now() + 99_999), child(close=close))
    assert runs.act("terminate") == "ok"
    assert runs.state() == "cancelled"
    assert runs.head()["error"] == "terminated by tests"
    assert runs.open() == {}
    assert runs.wakes() == []
    assert runs.shard.state("r:x.0") == "cancelled"
    assert runs.shard.due() == {}
    assert runs.state("r:k.0") == ("cancelled" if close == "terminate" else "queued")
    assert runs.told("r:k.0") == {
        "cancel": [("cancel", "its parent")], "terminate": [("end", "cancelled")], "abandon": [],
    }[close]  # fmt: skip
    assert 0 < runs.shard.ttl("run:r") <= KEEP
    assert 0 < runs.shard.ttl("run:r:journal") <= KEEP
    assert runs.act("terminate") == "closed cancelled"
    runs.wakes("r:k.0", "runs:k")


def test_terminating_a_running_one_fences_it(runs: Runs) -> None:
    one = runs.running()
    assert runs.act("terminate") == "ok"
    before = runs.shard.dump()
    assert runs.do(one, "succeeded", "1", seen=1) == "fenced"
    assert runs.renew(one)[0] == ["run r 1"]
    assert runs.shard.dump() == before
    assert runs.shard.pending("runs:w") == {}


@pytest.mark.parametrize("state", ["queued", "running", "parked"])
def test_a_paused_run_is_nobodys_until_it_is_resumed(runs: Runs, state: str) -> None:
    one = None
    if state == "parked":
        one = runs.parked()
    else:
        runs.start()
        if state == "running":
            one = runs.take()
    assert runs.act("pause") == "ok"
    assert runs.act("pause") == "unchanged paused"
    assert runs.wakes() == []
    assert runs.signal() == "ok"
    assert runs.state() == "paused"
    if one:
        assert runs.do(one, "park", number="7") == "fenced"
    assert runs.claim() == []
    assert runs.act("resume") == "ok"
    assert runs.act("resume") == "unchanged queued"
    assert len(runs.wakes()) == 1
    assert len(runs.take().journal) == 2


def test_a_stuck_run_is_resumed(runs: Runs) -> None:
    one = runs.running()
    assert runs.do(one, "stuck", "it does not fit") == "ok"
    assert (runs.state(), runs.head()["error"]) == ("stuck", "it does not fit")
    assert runs.wakes() == []
    runs.signal()
    assert runs.state() == "stuck"
    assert runs.act("resume") == "ok"
    assert "error" not in runs.head()
    assert len(runs.take().journal) == 2


def test_acting_on_nothing(runs: Runs) -> None:
    assert [runs.act(verb) for verb in ("terminate", "pause", "resume")] == ["missing"] * 3


# -- giving back, and keeping


def test_a_released_run_is_queued_again(runs: Runs) -> None:
    one = runs.running()
    assert runs.release(one) == "ok"
    assert runs.release(one) == "ok", "the reply was lost"
    assert len(runs.wakes()) == 1
    two = runs.take("bob.2")
    assert (two.attempt, two.deaths) == (2, 0)
    assert runs.release(one) == "stale"
    assert runs.do(two, "park", agent="bob.2") == "ok"
    assert runs.release(two, agent="bob.2") == "stale"
    assert runs.state() == "parked"


def test_what_is_held_is_renewed_and_what_is_not_is_handed_back(runs: Runs) -> None:
    one = runs.running()
    runs.shard.age("ann.1", "runs:w")
    assert runs.renew(one) == ([], 0)
    assert runs.renew() == ([], 0), "its lease is fresh"
    runs.shard.age("ann.1", "runs:w")
    assert runs.renew() == ([], 1), "a claim whose reply was lost"
    assert len(runs.wakes()) == 1
    assert runs.take("bob.2").attempt == 2
    assert runs.renew(one)[0] == ["run r 1"]


def test_commits_of_many_runs_with_a_fenced_one_in_the_middle(runs: Runs) -> None:
    taken = [runs.running(f"r{n}") for n in range(4)]
    items = [
        Doing(taken[0], records=[{"what": "call", "path": "x.0", "after": 0}], effects=[task("r0:x.0")]),
        Doing(taken[1], "succeeded", "1", effects=[task("r1:x.0"), timer()], records=[{"what": "timer"}], attempt=9),
        Doing(taken[2], "succeeded", '{"a":1}'),
        Doing(taken[3], "park", effects=[timer(5)]),
    ]
    assert [words[0] for words in runs.commit(*items)] == ["ok", "fenced", "ok", "ok"]
    assert [runs.state(f"r{n}") for n in range(4)] == ["running", "running", "succeeded", "parked"]
    assert [runs.open(f"r{n}") for n in range(4)] == [{"x.0": "task r0:x.0"}, {}, {}, {"timer.0": "timer 5"}]
    assert len(runs.journal("r1")) == 1
    for n in range(4):
        runs.wakes(f"r{n}")
