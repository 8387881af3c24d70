"""task_settle: the outcome of an attempt, once; whoever does not own the attempt changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tests.lua.shard import (
    KEEP,
    New,
    Outcome,
    Shard,
    ack,
    again,
    cancelled,
    complete,
    dead,
    delegate,
    expire,
    fail,
    reject,
    release,
)

#: Every way out of `running`, and the state that it leads to.
ARROWS: list[tuple[Callable[..., Outcome], str]] = [
    (complete, "succeeded"), (reject, "failed"), (cancelled, "cancelled"), (expire, "expired"), (dead, "dead"),
    (fail, "delayed"), (again, "delayed"), (release, "queued"), (delegate, "queued"),
]  # fmt: skip
arrows = pytest.mark.parametrize(("verb", "state"), ARROWS, ids=[verb.__name__ for verb, _ in ARROWS])


@arrows
def test_an_outcome_ends_the_attempt(shard: Shard, verb: Callable[..., Outcome], state: str) -> None:
    one = shard.running("a", extra={"waiters": "cli"})
    assert shard.settle("ann.1", verb(one)) == ["ok"]
    assert shard.state("a") == state
    assert one.entry not in shard.entries()
    assert one.entry not in shard.pending()
    final = state not in ("delayed", "queued")
    assert (shard.ttl("task:a") > 0) == final
    assert [reply["state"] for reply in shard.replies("cli")] == ([state] if final else [])
    assert bool(shard.record("a").get("finished_at")) == final


@arrows
def test_the_same_outcome_again_is_ok_and_changes_nothing(
    shard: Shard, verb: Callable[..., Outcome], state: str
) -> None:
    """The reply was lost, so the agent asks again."""
    one = shard.running("a", extra={"waiters": "cli"})
    shard.settle("ann.1", verb(one))
    before = shard.dump()
    assert shard.settle("ann.1", verb(one)) == ["ok"]
    assert shard.dump() == before


@arrows
def test_twice_in_one_batch_is_once(shard: Shard, verb: Callable[..., Outcome], state: str) -> None:
    one = shard.running("a", extra={"waiters": "cli"})
    assert shard.settle("ann.1", verb(one), verb(one)) == ["ok", "ok"]
    assert shard.state("a") == state
    assert len(shard.replies("cli")) <= 1
    assert len(shard.letters()) <= 1
    assert len(shard.entries()) == (1 if state == "queued" else 0)


@arrows
def test_another_agent_is_refused(shard: Shard, verb: Callable[..., Outcome], state: str) -> None:
    one = shard.running("a", "ann.1")
    before = shard.dump()
    assert shard.settle("bob.2", verb(one)) == ["stale"]
    assert shard.dump() == before


@arrows
def test_another_attempt_is_refused(shard: Shard, verb: Callable[..., Outcome], state: str) -> None:
    one = shard.running("a")
    before = shard.dump()
    assert shard.settle("ann.1", verb(dataclasses.replace(one, attempt=2))) == ["stale"]
    assert shard.settle("ann.1", verb(dataclasses.replace(one, attempt=0))) == ["stale"]
    assert shard.dump() == before


@arrows
def test_another_entry_is_refused(shard: Shard, verb: Callable[..., Outcome], state: str) -> None:
    one = shard.running("a")
    before = shard.dump()
    assert shard.settle("ann.1", verb(dataclasses.replace(one, entry="1-1"))) == ["stale"]
    assert shard.dump() == before


@arrows
def test_a_missing_record_is_refused(shard: Shard, verb: Callable[..., Outcome], state: str) -> None:
    one = shard.running("a")
    shard.redis.delete(shard.key("task:a"))
    before = shard.dump()
    assert shard.settle("ann.1", verb(one)) == ["stale"]
    assert shard.dump() == before


@arrows
def test_a_record_of_another_type_is_told_and_left_alone(
    shard: Shard, verb: Callable[..., Outcome], state: str
) -> None:
    one = shard.running("a")
    shard.redis.delete(shard.key("task:a"))
    shard.redis.set(shard.key("task:a"), "mine")
    before = shard.dump()
    assert shard.settle("ann.1", verb(one)) == ["broken"]
    assert shard.dump() == before
    shard.redis.delete(shard.key("task:a"))


@arrows
def test_a_zombie_is_refused(shard: Shard, verb: Callable[..., Outcome], state: str) -> None:
    """Its lease ran out, and the task was taken over."""
    one = shard.running("a", "ann.1")
    shard.crash("ann.1")
    two = shard.take("bob.2", orphans=[("tasks:x", "ann.1")])
    before = shard.dump()
    assert shard.settle("ann.1", verb(one)) == ["stale"]
    assert shard.dump() == before
    assert shard.settle("bob.2", complete(two)) == ["ok"]


@arrows
@pytest.mark.parametrize("first", [complete, dead, cancelled, fail], ids=lambda first: first.__name__)
def test_a_bad_one_in_the_middle_leaves_the_others_right(
    shard: Shard, verb: Callable[..., Outcome], state: str, first: Callable[..., Outcome]
) -> None:
    shard.enqueue(New("a"), New("b"), New("c"))
    a, b, c = shard.claim()
    stale = dataclasses.replace(b, attempt=7)
    assert shard.settle("ann.1", first(a), verb(stale), verb(c)) == ["ok", "stale", "ok"]
    assert (shard.state("b"), shard.state("c")) == ("running", state)
    assert list(shard.pending()) == [b.entry]


@pytest.mark.parametrize("other", [verb for verb, _ in ARROWS if verb is not complete], ids=lambda verb: verb.__name__)
def test_another_outcome_after_the_first_is_refused(shard: Shard, other: Callable[..., Outcome]) -> None:
    one = shard.running("a")
    shard.settle("ann.1", complete(one))
    before = shard.dump()
    assert shard.settle("ann.1", other(one)) == ["stale"]
    assert shard.dump() == before


# -- what each one writes


def test_complete(shard: Shard) -> None:
    one = shard.running("a", extra={"waiters": "cli other"})
    before = shard.record("a")
    shard.settle("ann.1", complete(one, '{"n":4}', keep=5000))
    record = shard.record("a")
    assert record.pop("finished_at") >= before["started_at"]
    assert record == before | {"state": "succeeded", "result": '{"n":4}'}
    assert 0 < shard.ttl("task:a") <= 5000
    for client in ("cli", "other"):
        assert shard.replies(client) == [{"id": "a", "state": "succeeded", "value": '{"n":4}'}]
        assert shard.ttl(f"replies:{client}") > 0


def test_a_long_result_does_not_travel_with_the_reply(shard: Shard) -> None:
    one = shard.running("a", extra={"waiters": "cli"})
    shard.settle("ann.1", complete(one, '"' + "x" * 4096 + '"'))
    assert shard.replies("cli") == [{"id": "a", "state": "succeeded"}]
    assert len(shard.record("a")["result"]) == 4098


def test_reject(shard: Shard) -> None:
    one = shard.running("a", extra={"waiters": "cli"})
    shard.settle("ann.1", reject(one, "not mine", keep=5000))
    assert shard.record("a")["error"] == "not mine"
    assert "result" not in shard.record("a")
    assert shard.replies("cli") == [{"id": "a", "state": "failed", "value": "not mine"}]


def test_fail_waits_and_counts_a_failure(shard: Shard) -> None:
    one = shard.running("a")
    shard.settle("ann.1", fail(one, "boom", wait=5000, detail="Traceback"))
    record = shard.record("a")
    assert (record["error"], record["error_detail"], record["failures"]) == ("boom", "Traceback", "1")
    assert shard.due() == {"a": int(record["due"])}
    assert 4000 < int(record["due"]) - shard.now() <= 5000
    assert shard.fire(ahead=6000) == (1, "")
    two = shard.take("bob.2")
    assert (two.attempt, two.failures) == (2, 1)
    assert two.fields["attempt"] == "2"
    shard.settle("bob.2", complete(two))
    assert shard.state("a") == "succeeded"


def test_again_waits_and_counts_no_failure(shard: Shard) -> None:
    one = shard.running("a")
    shard.settle("ann.1", again(one, wait=0))
    assert "failures" not in shard.record("a")
    assert shard.fire() == (1, "")
    assert shard.take().failures == 0


def test_dead_writes_a_letter(shard: Shard) -> None:
    one = shard.running("a", payload='{"n":1}', extra={"waiters": "cli"})
    shard.settle("ann.1", dead(one, "boom", "attempts", "Traceback"))
    record = shard.record("a")
    assert (record["error"], record["reason"], record["error_detail"]) == ("boom", "attempts", "Traceback")
    ((place, letter),) = shard.entries("dead:x").items()
    assert record["letter"] == place
    assert letter.pop("at") == record["finished_at"]
    assert letter == {
        "id": "a", "payload": '{"n":1}', "reason": "attempts", "error": "boom", "attempts": "1", "agent": "ann.1",
    }  # fmt: skip
    assert shard.ttl("task:a") > KEEP, "a dead task is kept for a week"
    assert shard.replies("cli") == [{"id": "a", "state": "dead", "value": "boom"}]


def test_release_puts_the_task_back_at_once(shard: Shard) -> None:
    shard.new("a", priority="high", extra={"header.tenant": "acme", "correlation": "c"})
    streams = ["inbox:ann.1", "tasks:x:high", "tasks:x"]
    one = shard.take(streams=streams)
    assert shard.settle("ann.1", release(one)) == ["ok"]
    ((entry, fields),) = shard.entries("tasks:x:high").items()
    assert (fields["tenant"], fields["correlation"]) == ("acme", "c")
    record = shard.record("a")
    assert (record["state"], record["entry"]) == ("queued", entry)
    two = shard.take("bob.2", streams=["inbox:bob.2", "tasks:x:high", "tasks:x"])
    assert (two.failures, two.deaths) == (0, 0)
    assert two.fields["attempt"] == str(two.attempt), "the entry says what the record says"


def test_a_task_for_one_agent_goes_back_to_its_inbox(shard: Shard) -> None:
    shard.new("a", to="ann.1")
    one = shard.take("ann.1")
    shard.settle("ann.1", release(one))
    assert len(shard.entries("inbox:ann.1")) == 1
    assert shard.take("ann.1").fields["capability"] == "x"


@pytest.mark.parametrize("verb", [fail, again, release, delegate], ids=lambda verb: verb.__name__)
def test_a_cancelled_task_does_not_come_back(shard: Shard, verb: Callable[..., Outcome]) -> None:
    one = shard.running("a", extra={"waiters": "cli"})
    shard.cancel("a", by="joe")
    assert shard.settle("ann.1", verb(one)) == ["ok"]
    assert (shard.state("a"), shard.record("a")["error"]) == ("cancelled", "cancelled by joe")
    assert shard.due() == {}
    assert shard.entries() == {}
    assert shard.ttl("task:a") > 0
    assert [reply["state"] for reply in shard.replies("cli")] == ["cancelled"]


def test_a_task_that_was_done_before_it_could_obey_has_succeeded(shard: Shard) -> None:
    one = shard.running("a")
    shard.cancel("a")
    shard.settle("ann.1", complete(one))
    assert shard.state("a") == "succeeded"


def test_release_into_a_stream_of_another_type_is_a_dead_letter(shard: Shard) -> None:
    one = shard.running("a")
    shard.redis.delete(shard.key("tasks:x"))
    shard.redis.set(shard.key("tasks:x"), "mine")
    assert shard.settle("ann.1", release(one)) == ["ok"]
    assert (shard.state("a"), shard.record("a")["reason"]) == ("dead", "stream_unusable")
    shard.redis.delete(shard.key("tasks:x"))


def test_a_stream_that_went_away_takes_no_outcome_with_it(shard: Shard) -> None:
    one = shard.running("a")
    shard.redis.delete(shard.key("tasks:x"))
    assert shard.settle("ann.1", complete(one)) == ["ok"]
    assert shard.state("a") == "succeeded"


# -- messages


def test_a_request_is_answered(shard: Shard) -> None:
    ann = shard.join("ann")
    shard.send(ann, id="m", type="ask", payload="1", reply_to="cli")
    one = shard.take(ann)
    assert shard.settle(ann, ack(one, 'replied {"a": 1}', "cli")) == ["ok"]
    assert shard.replies("cli") == [{"id": "m", "state": "replied", "value": '{"a": 1}'}]
    assert shard.entries(f"mail:{ann}") == {}
    assert shard.settle(ann, ack(one, 'replied {"a": 1}', "cli")) == ["stale"]
    assert len(shard.replies("cli")) == 1


def test_a_message_that_fails_is_a_letter(shard: Shard) -> None:
    ann = shard.join("ann")
    shard.send(ann, id="m", type="tell", payload="[1]")
    one = shard.take(ann)
    assert shard.settle(ann, Outcome(one, "ack", "m", "[1]", "dead ValueError: boom")) == ["ok"]
    (letter,) = shard.letters("inbox")
    assert (letter["id"], letter["payload"], letter["reason"], letter["error"]) == (
        "m", "[1]", "message_failed", "ValueError: boom",
    )  # fmt: skip
    assert "inbox" in shard.redis.smembers(shard.key("caps"))


def test_a_message_of_a_drained_inbox_is_stale_and_the_others_are_settled(shard: Shard) -> None:
    """The agent was frozen, its inbox was drained; it comes back with one message and one task in its hands."""
    ann = shard.join("ann")
    shard.send(ann, id="m", type="tell", payload="1")
    message = shard.take(ann)
    task = shard.running("a", ann)
    shard.crash(ann)
    assert shard.drain(ann) == ("ok", 0, 1)
    assert shard.settle(ann, complete(task), ack(message)) == ["ok", "stale"]
    assert shard.state("a") == "succeeded"


@pytest.mark.parametrize("verb", [fail, again, release, delegate], ids=lambda verb: verb.__name__)
def test_the_outcome_of_a_cancelled_task_may_be_repeated(shard: Shard, verb: Callable[..., Outcome]) -> None:
    one = shard.running("a")
    shard.cancel("a")
    shard.settle("ann.1", verb(one))
    before = shard.dump()
    assert shard.settle("ann.1", verb(one)) == ["ok"]
    assert shard.dump() == before


def test_a_delegated_task_is_another_agents_with_all_that_it_carries(shard: Shard) -> None:
    one = shard.running("a", extra={"deadline": str(shard.now() + 60000), "header.k": "v"})
    assert shard.settle("ann.1", delegate(one, "bob.2")) == ["ok"]
    (entry,) = shard.entries("inbox:bob.2").values()
    assert (entry["id"], entry["capability"], entry["refused"], entry["k"]) == ("a", "x", "ann.1", "v")
    assert entry["deadline"] == one.fields["deadline"]
    assert shard.entries("tasks:x") == {}
    assert (shard.state("a"), shard.record("a")["to"]) == ("queued", "bob.2")
    two = shard.take("bob.2")
    assert shard.settle("ann.1", delegate(one, "cid.3")) == ["stale"], "it is another one's by now"
    assert shard.settle("bob.2", delegate(two)) == ["ok"]
    (entry,) = shard.entries("tasks:x").values()
    assert entry["refused"] == "ann.1 bob.2"
    assert "capability" not in entry
    assert shard.entries("inbox:bob.2") == {}
    assert "to" not in shard.record("a")
    assert "failures" not in shard.record("a")


def test_a_delegation_may_be_repeated_when_its_reply_was_lost(shard: Shard) -> None:
    one = shard.running("a")
    shard.settle("ann.1", delegate(one, "bob.2"))
    before = shard.dump()
    assert shard.settle("ann.1", delegate(one, "bob.2")) == ["ok"]
    assert shard.dump() == before
