"""vote_open, vote_cast, vote_close and what inbox_drain does for votes: every arrow, every refused arrow, and the arithmetic against `tally`."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from streammesh import tally
from streammesh.motions import METHODS, Gathering, Motion
from tests.lua.shard import Shard

VOTERS = {"ann.1": 1, "bob.2": 1, "eve.3": 1}


class Vote:
    """One vote `v` in a shard, its scripts under readable names."""

    def __init__(self, shard: Shard, voters: dict[str, int] | None = None, *, id: str = "v", **rules: Any) -> None:
        self.shard, self.id, self.voters = shard, id, voters or VOTERS
        self.rules = {"deadline": 600, **rules}
        self.opened = self.open()

    def fields(self, question: str = "?") -> dict[str, Any]:
        options = self.rules.get("options", ["a", "b", "c"])
        rules = {name: value for name, value in self.rules.items() if name != "options"}
        fields = Motion.make(question, options, **rules).fields(self.id, self.voters, weighted=True)
        return {**fields, "waiters": "client", "correlation": "c-1", "causation": "m-1"}

    def open(self, question: str = "?") -> tuple[str, str]:
        flat = [word for pair in self.fields(question).items() for word in pair]
        word, state, _ = self.shard.run("vote_open", self.id, *flat)
        return word, state

    def cast(self, agent: str, ballot: str, round: str = "") -> tuple[str, str]:
        word, state, _ = self.shard.run("vote_cast", self.id, agent, round, ballot, '"said"')
        return word, state

    def close(self, *, cancel: bool = False, by: str = "zoe.9") -> str:
        return str(self.shard.run("vote_close", self.id, by, "1" if cancel else "")[0])

    def late(self) -> None:
        """Its deadline is over."""
        self.shard.redis.hset(self.shard.key(f"vote:{self.id}"), "deadline", "1")

    @property
    def head(self) -> dict[str, str]:
        return dict(self.shard.redis.hgetall(self.shard.key(f"vote:{self.id}")))

    @property
    def ballots(self) -> dict[str, str]:
        return dict(self.shard.redis.hgetall(self.shard.key(f"vote:{self.id}:ballots")))

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads(self.head["result"]))

    @property
    def audit(self) -> list[str]:
        return [one["type"] for one in self.shard.entries(f"vote:{self.id}:audit").values()]

    def is_open(self) -> bool:
        due = f"vote {self.id}" in self.shard.due()
        assert due == (self.head["state"] == "open")
        assert (self.shard.ttl(f"vote:{self.id}") == -1) == due
        return due


@pytest.fixture(autouse=True)
def closed(shard: Shard) -> Any:
    """What a test leaves open is closed: the shard is judged by what stays."""
    yield
    for key in shard.redis.keys(shard.key("vote:*")):
        if shard.redis.type(key) == "hash" and not key.endswith(":ballots"):
            shard.run("vote_close", key.removeprefix(shard.key("vote:")), "tests", "1")


def test_opening_asks_every_voter_and_says_so(shard: Shard) -> None:
    vote = Vote(shard)
    assert vote.opened == ("ok", "open")
    assert vote.is_open()
    for voter in VOTERS:
        ((_, entry),) = shard.entries(f"mail:{voter}").items()
        assert (entry["type"], entry["vote"], entry["round"], entry["correlation"], entry["causation"]) == (
            "vote.open",
            "v",
            "1",
            "c-1",
            "m-1",
        )
        assert json.loads(entry["payload"])["options"] == ["a", "b", "c"]
    (event,) = shard.events("vote.opened")
    assert (event["vote"], event["correlation"], event["causation"]) == ("v", "c-1", "m-1")


def test_the_same_opening_again_changes_nothing_and_another_is_a_conflict(shard: Shard) -> None:
    vote = Vote(shard)
    before = shard.dump()
    assert vote.open() == ("known", "open")
    assert vote.open("another?") == ("conflict", "open")
    assert shard.dump() == before


def test_the_deciding_ballot_closes_it_and_tells_who_waits(shard: Shard) -> None:
    vote = Vote(shard)
    assert vote.cast("ann.1", "2") == ("ok", "open")
    assert vote.is_open()
    assert vote.cast("bob.2", "2") == ("ok", "decided")
    assert not vote.is_open()
    assert (vote.result["winner"], vote.result["support"], vote.result["silent"], vote.result["closed_by"]) == (
        "b",
        2,
        ["eve.3"],
        "bob.2",
    )
    (reply,) = shard.replies("client")
    assert (reply["id"], reply["state"], json.loads(reply["value"])) == ("vote v", "decided", vote.result)
    assert [one["outcome"] for one in shard.events("vote.closed")] == ["decided"]
    assert vote.audit == ["open", "ballot", "ballot", "close"]


def test_refused_ballots_are_on_record_and_count_for_nothing(shard: Shard) -> None:
    vote = Vote(shard)
    vote.cast("ann.1", "1")
    assert vote.cast("ann.1", "1") == ("ok", "open")  # a reply was lost
    assert vote.cast("ann.1", "2") == ("duplicate", "open")
    assert vote.cast("zoe.9", "2") == ("foreign", "open")
    assert vote.cast("ann.2", "2") == ("foreign", "open")  # of another epoch
    assert vote.cast("1", "2") == ("foreign", "open")  # a weight is no voter
    assert vote.cast("bob.2", "1", round="2") == ("closed", "open")
    assert vote.ballots == {"ann.1": "1"}
    vote.cast("bob.2", "1")
    assert vote.cast("eve.3", "1") == ("closed", "decided")
    assert vote.cast("bob.2", "1") == ("ok", "decided")
    assert vote.audit == ["open", "ballot", *["refused"] * 5, "ballot", "close", "refused"]
    assert shard.run("vote_cast", "gone", "ann.1", "", "1", "null") == ["missing", "", 0]


def test_refusals_are_kept_up_to_a_bound(shard: Shard) -> None:
    vote = Vote(shard)
    for _ in range(1003):
        vote.cast("zoe.9", "1")
    assert vote.audit.count("refused") == 1000
    assert vote.head["refused"] == "1003"


@pytest.mark.parametrize(
    ("ballot", "rules", "valid"),
    [
        ("1", {}, True), ("abstain", {}, True), ("4", {}, False), ("0", {}, False), ("1 2", {}, False), ("", {}, False),
        ("nonsense", {}, False), ("veto 1", {}, False), ("veto 1", {"veto": True}, True), ("veto 9", {"veto": True}, False),
        ("1 2", {"method": "approval"}, True), ("1 1", {"method": "approval"}, False), ("3 1", {"method": "ranked"}, True),
        ("answer 1", {}, False), ("dead", {}, False), ("invalid why", {}, False),
    ],
)  # fmt: skip
def test_what_is_a_ballot(shard: Shard, ballot: str, rules: dict[str, Any], valid: bool) -> None:
    vote = Vote(shard, **rules)
    assert vote.cast("ann.1", ballot) == ("ok" if valid else "invalid", "open")
    assert vote.ballots["ann.1"].startswith("invalid ") != valid
    assert vote.cast("ann.1", "1") == ("ok" if ballot == "1" or not valid else "duplicate", "open")


def test_the_last_ballot_counts_where_it_is_so_said_and_nothing_ends_early(shard: Shard) -> None:
    vote = Vote(shard, change="last")
    for ballot in ("1", "2"):
        assert vote.cast("ann.1", ballot) == ("ok", "open")
    assert vote.cast("bob.2", "2") == ("ok", "open")
    assert vote.cast("eve.3", "1") == ("ok", "decided")
    assert vote.result["tally"] == [1, 2, 0]


def test_a_ballot_after_the_deadline_closes_it_and_is_late(shard: Shard) -> None:
    vote = Vote(shard, method="plurality", quorum=1)
    vote.cast("ann.1", "1")
    vote.late()
    assert vote.cast("bob.2", "2") == ("closed", "decided")
    assert (vote.result["winner"], vote.result["reason"], vote.result["silent"]) == (
        "a",
        "deadline",
        ["bob.2", "eve.3"],
    )


def test_closing_waits_for_the_deadline_and_happens_once(shard: Shard) -> None:
    vote = Vote(shard)
    vote.cast("ann.1", "1")
    assert vote.close() == "open"
    assert vote.is_open()
    vote.late()
    assert vote.close() == "no_quorum"
    before = shard.dump()
    assert [vote.close(), vote.close(cancel=True), vote.close(by="another.8")] == ["no_quorum"] * 3
    assert shard.dump() == before
    assert shard.run("vote_close", "gone", "me", "") == ["missing", "", 0]


def test_due_fire_names_it(shard: Shard) -> None:
    vote = Vote(shard)
    shard.redis.zadd(shard.key("due"), {"vote v": 1})
    assert shard.run("due_fire", 100, 0)[2:] == ["vote v"]
    assert vote.is_open()


def test_cancelling_and_the_mark_of_a_run(shard: Shard) -> None:
    vote = Vote(shard)
    assert vote.close(cancel=True, by="me") == "cancelled"
    assert (vote.result["reason"], vote.result["winner"]) == ("cancelled by me", None)
    other = Vote(shard, id="w")
    shard.redis.hset(shard.key("vote:w"), "cancel", "its run")
    assert other.cast("ann.1", "1") == ("closed", "cancelled")
    assert other.result["reason"] == "cancelled by its run"


def test_the_dead_are_not_waited_for_and_the_quorum_stays(shard: Shard) -> None:
    vote = Vote(shard, {f"v.{n}": 1 for n in range(9)}, quorum=5, method="plurality")
    for n in range(4):
        vote.cast(f"v.{n}", "1")
    for n in range(4, 8):
        shard.drain(f"v.{n}")
        assert vote.is_open(), n
    shard.drain("v.8")
    assert (vote.head["state"], vote.result["reason"], vote.result["dead"]) == (
        "no_quorum",
        "unreachable",
        [f"v.{n}" for n in range(4, 9)],
    )
    assert shard.letters("inbox") == []


def test_who_voted_before_it_died_has_voted_and_who_comes_back_votes(shard: Shard) -> None:
    vote = Vote(shard)
    vote.cast("ann.1", "1")
    shard.drain("ann.1")
    shard.drain("bob.2")
    assert vote.ballots == {"ann.1": "1", "bob.2": "dead"}
    assert vote.cast("bob.2", "1") == ("ok", "decided")
    assert vote.result["dead"] == []


def test_a_runoff_asks_again_once_between_the_leaders(shard: Shard) -> None:
    vote = Vote(shard, method="plurality", tie="runoff")
    for voter, ballot in (("ann.1", "1"), ("bob.2", "2"), ("eve.3", "abstain")):
        vote.cast(voter, ballot, round="1")
    assert vote.is_open()
    assert (vote.head["round"], vote.head["eligible"], vote.ballots) == ("2", "1 2", {})
    assert [len(shard.entries(f"mail:{voter}")) for voter in VOTERS] == [2, 2, 2]
    assert vote.cast("ann.1", "1", round="1") == ("closed", "open")
    assert vote.cast("ann.1", "3", round="2")[0] == "invalid"
    for voter, ballot in (("ann.1", "1"), ("bob.2", "2"), ("eve.3", "abstain")):
        vote.cast(voter, ballot, round="2")
    assert (vote.head["state"], vote.result["round"], vote.result["tally"]) == ("tie", 2, [1, 1, None])


def test_a_collection(shard: Shard) -> None:
    def collect(id: str, **limits: Any) -> Vote:
        vote = Vote.__new__(Vote)
        vote.shard, vote.id, vote.voters = shard, id, VOTERS
        flat = [word for pair in Gathering.make("idea", {"n": 1}, **limits).fields(VOTERS).items() for word in pair]
        assert shard.run("vote_open", id, *flat)[0] == "ok"
        return vote

    one = collect("c", at_least=2)
    assert [entry["type"] for entry in shard.entries("mail:ann.1").values()] == ["collect.ask"]
    assert one.cast("ann.1", 'answer {"x":1}') == ("ok", "open")
    assert one.cast("bob.2", "1") == ("invalid", "open")
    assert one.cast("eve.3", "answer [2]") == ("ok", "decided")
    assert (one.result["answers"], one.result["invalid"], one.result["reason"]) == ([["ann.1", {"x": 1}], ["eve.3", [2]]], [["bob.2", "not an answer"]], "all")  # fmt: skip
    two = collect("d", at_least=2)
    two.cast("ann.1", "invalid no")
    shard.drain("bob.2")
    assert (two.head["state"], two.result["reason"], two.result["silent"], two.result["dead"]) == (
        "no_quorum",
        "unreachable",
        ["eve.3"],
        ["bob.2"],
    )
    three = collect("e", expected=1)
    assert three.cast("eve.3", "answer 1") == ("ok", "decided")
    four = collect("f", stall=0.001)
    four.cast("eve.3", "answer 1")
    while four.close() == "open":
        pass
    assert four.result["reason"] == "stall"


# -- the arithmetic


def draw(chance: random.Random) -> tuple[dict[str, int], dict[str, Any], dict[str, str]]:
    """An electorate, rules and a full set of ballots."""
    voters = {f"v.{n}": chance.choice([1, 1, 1, 2, 3, 0]) for n in range(chance.randint(1, 9))}
    voters["v.0"] = max(1, voters["v.0"])
    method = chance.choice(list(METHODS))
    options = ["a", "b", "c", "d"][: chance.randint(2, 4)]
    tie = chance.choice(["no_decision", "priority", "hash", "runoff", f"status_quo:{options[-1]}", "chair:v.0"])
    rules: dict[str, Any] = {
        "options": options, "method": method, "basis": chance.choice(["cast", "cast", "electorate"]), "tie": tie,
        "quorum": chance.randint(1, len(voters)), "veto": chance.random() < 0.2, "change": chance.choice(["first", "first", "last"]),
    }  # fmt: skip
    if method == "supermajority":
        rules["threshold"] = chance.choice([2 / 3, 0.75, 0.6])

    def ballot() -> str:
        several = chance.sample(range(1, len(options) + 1), chance.randint(1, len(options)))
        kinds = ["abstain", "invalid why", "dead"] + (["veto 1", "veto 2"] if rules["veto"] else [])
        if chance.random() < 0.2:
            return chance.choice(kinds)
        return " ".join(map(str, several if method in ("approval", "ranked") else several[:1]))

    return voters, rules, {voter: ballot() for voter in voters}


@pytest.mark.parametrize("seed", range(200))
def test_the_scripts_count_as_tally_does_after_every_ballot(shard: Shard, seed: int) -> None:
    chance = random.Random(seed)
    voters, rules, planned = draw(chance)
    vote = Vote(shard, voters, **rules)
    counting, given, verdict = tally.Rules.of_fields(vote.head), dict[str, str](), None
    for _ in range(2):
        counting, given = tally.Rules.of_fields(vote.head), dict(vote.ballots)
        order = [voter for voter in voters if voter not in given]
        chance.shuffle(order)
        for voter in order:
            words = given[voter] = planned[voter]
            shard.drain(voter) if words == "dead" else vote.cast(voter, words)
            # In the second round what names an option that is out is invalid.
            given |= {one: words for one, words in vote.ballots.items() if words.startswith("invalid ")}
            verdict = tally.judge(counting, list(voters.items()), given)
            if verdict:
                break
            assert vote.head["state"] == "open"
        if verdict is None or verdict.outcome != "runoff":
            break
        assert vote.head["round"] == "2"
    assert verdict is not None, "all have said something, and it goes on"
    standing = tally.stand(counting, list(voters.items()), given)
    result = vote.result
    assert (vote.head["state"], result["reason"]) == (verdict.outcome, verdict.reason)
    assert result["winner"] == (rules["options"][verdict.winner - 1] if verdict.winner else None)
    assert result["support"] == (standing.support.get(verdict.winner, 0) if verdict.winner else standing.best)
    assert (result["basis"], result["ballots"], result["cast"], result["electorate"]) == (
        standing.basis,
        standing.cast,
        standing.cast_weight,
        standing.weight,
    )
    assert (result["silent"], result["dead"], dict(result["invalid"])) == (
        [*standing.outstanding],
        [*standing.dead],
        dict(standing.invalid),
    )
    assert result["tally"] == [standing.support.get(n) for n in range(1, len(rules["options"]) + 1)]


@pytest.mark.parametrize("seed", range(300))
def test_what_is_decided_early_no_later_ballot_would_have_changed(seed: int) -> None:
    chance = random.Random(seed)
    voters, rules, planned = draw(chance)
    rules = {**rules, "change": "first"}
    options = rules.pop("options")
    fields = Motion.make("?", options, **rules).fields("v", voters, weighted=True)
    counting = tally.Rules.of_fields({**{name: str(value) for name, value in fields.items()}, "round": "1"})
    electorate, given = list(voters.items()), {}
    for voter in chance.sample(list(voters), len(voters)):
        given[voter] = planned[voter]
        early = tally.judge(counting, electorate, given)
        if early is None:
            continue
        if early.reason in ("early", "impossible", "unreachable"):
            for _ in range(30):
                rest = {other: draw_ballot(chance, rules, len(options)) for other in voters if other not in given}
                late = tally.judge(counting, electorate, {**given, **rest})
                assert late is not None
                assert (late.outcome, late.winner) == (early.outcome, early.winner), (given, rest)
        return
    raise AssertionError("all have voted, and it goes on")


def draw_ballot(chance: random.Random, rules: dict[str, Any], options: int) -> str:
    several = chance.sample(range(1, options + 1), chance.randint(1, options))
    special = chance.choice(["abstain", "dead", "invalid x", *(["veto 1"] if rules["veto"] else [])])
    words = " ".join(map(str, several if rules["method"] in ("approval", "ranked") else several[:1]))
    return special if chance.random() < 0.3 else words
