"""Many agents decide: a question is put to the vote, and comes to one decision whatever becomes of those who take part."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from streammesh import Agent, Ballot, Decision, Mesh, Message, Run, Veto
from streammesh.errors import (
    BallotRefused,
    InvalidVote,
    NoVoters,
    RunCancelled,
    TooFewAnswers,
    UnknownAgent,
    VoteConflict,
    VoteNotFound,
)
from streammesh.sync import Mesh as SyncMesh
from tests.eventually import eventually
from tests.guide.conftest import Serve


def voter(choice: Any, name: str = "voter", *, topic: str = "default", heard: list[Ballot] | None = None) -> Agent:
    """An agent whose vote is settled before it is asked."""
    agent = Agent(name, lease=1.0)

    @agent.votes(topic)
    async def vote(ballot: Ballot) -> Any:
        if heard is not None:
            heard.append(ballot)
        if isinstance(choice, Exception):
            raise choice
        return choice(ballot) if callable(choice) else choice

    return agent


async def serve_all(serve: Serve, choices: Mapping[str, Any], **options: Any) -> dict[str, str]:
    """name -> id"""
    return {name: await serve(voter(choice, name, **options)) for name, choice in choices.items()}


async def test_a_vote(mesh: Mesh, serve: Serve) -> None:
    heard: list[Ballot] = []
    ids = await serve_all(serve, {"ann": "tea", "bob": "tea", "eve": "milk"}, heard=heard)
    decision = await mesh.vote("What do we drink?", ["tea", "milk"], payload={"at": 5}, method="plurality", quorum=3)
    assert (decision.outcome, decision.winner, decision.decided) == ("decided", "tea", True)
    assert (decision.support, decision.basis, decision.cast, decision.electorate, decision.margin) == (2, 3, 3, 3, 1)
    assert (decision.turnout, decision.tally) == (1.0, {"tea": 2, "milk": 1})
    assert decision.confidence == 2 / 3
    assert (decision.silent, decision.dead, decision.invalid, decision.reason) == ((), (), {}, "all")
    assert decision.closed_by in ids.values()
    assert {(one.question, one.options, one.topic, one.payload["at"], one.round) for one in heard} == {("What do we drink?", ("tea", "milk"), "default", 5, 1)}  # fmt: skip
    recount = await mesh.votes.recount(decision.id)
    assert recount.agrees
    assert recount.record == decision


async def test_it_ends_as_soon_as_nothing_could_change_it(mesh: Mesh, serve: Serve) -> None:
    never = asyncio.Event()

    async def silent(_: Ballot) -> None:
        await never.wait()

    ids = await serve_all(serve, {"ann": "tea", "bob": "tea"})
    sleeper = Agent("sleeper", lease=1.0, grace=0.05)
    sleeper.votes()(silent)
    ids["sleeper"] = await serve(sleeper)
    async with asyncio.timeout(10):
        decision = await mesh.vote("?", ["tea", "milk"])
    assert (decision.outcome, decision.reason, decision.silent) == ("decided", "early", (ids["sleeper"],))
    # One against one, and who could break it says nothing: the deadline ends it.
    async with asyncio.timeout(10):
        decision = await mesh.vote("?", ["tea", "milk"], deadline=0.3, quorum=3)
    assert (decision.outcome, decision.winner, decision.reason) == ("no_quorum", None, "deadline")
    assert (await mesh.votes.recount(decision.id)).agrees
    never.set()


@pytest.mark.parametrize(
    ("method", "choices", "outcome", "winner"),
    [
        ("majority", ["a", "a", "b"], "decided", "a"),
        ("majority", ["a", "b", "c"], "no_majority", None),
        ("majority", ["a", "b", None], "tie", None),
        ("supermajority", ["a", "a", "b"], "decided", "a"),
        ("supermajority", ["a", "b", "b", "a"], "no_majority", None),
        ("unanimity", ["a", "a", "a"], "decided", "a"),
        ("unanimity", ["a", "a", "b"], "no_majority", None),
        ("approval", [["a", "b"], ["b", "c"], ["c", "b"]], "decided", "b"),
        ("ranked", [["a", "b"], ["b"], ["c", "b", "a"], ["a", "c"], ["b", "a"]], "decided", "b"),
        ("majority", [None, None, None], "no_majority", None),
        ("majority", ["a", "nothing", ValueError("boom")], "no_quorum", None),
    ],
)
async def test_methods(
    mesh: Mesh, serve: Serve, method: str, choices: list[Any], outcome: str, winner: str | None
) -> None:
    await serve_all(serve, {f"v{n}": choice for n, choice in enumerate(choices)})
    decision = await mesh.vote("?", ["a", "b", "c"], method=method)
    assert (decision.outcome, decision.winner) == (outcome, winner)
    assert (await mesh.votes.recount(decision.id)).agrees


async def test_weights_and_invalid_ballots(mesh: Mesh, serve: Serve) -> None:
    ids = await serve_all(serve, {"ann": "a", "bob": "b", "eve": "b", "odd": "z", "sick": ValueError("boom")})
    weights = {"ann": 5, ids["bob"]: 2, "eve": 0, "odd": 9, "sick": 1}
    decision = await mesh.vote("?", ["a", "b"], voters=weights, method="weighted", quorum=3, change="last")
    assert (decision.winner, decision.support, decision.cast, decision.electorate) == ("a", 5, 7, 17)
    assert decision.ballots == 3
    assert set(decision.invalid) == {ids["odd"], ids["sick"]}
    assert "'z'" in decision.invalid[ids["odd"]]
    assert "ValueError: boom" in decision.invalid[ids["sick"]]


async def test_a_tie_and_what_breaks_it(mesh: Mesh, serve: Serve) -> None:
    ids = await serve_all(serve, {"ann": "b", "bob": "a", "eve": None})
    outcomes: dict[str, Any] = {}
    for tie in ("no_decision", "priority", "hash", "status_quo:c", "chair:ann", f"chair:{ids['eve']}"):
        decision = await mesh.vote(
            "?", ["a", "b", "c"], method="plurality", tie=tie, id=f"v-{tie.partition(':')[0]}-{len(outcomes)}"
        )
        outcomes[tie.replace(ids["ann"], "ann").replace(ids["eve"], "eve")] = (decision.outcome, decision.winner)
        assert (await mesh.votes.recount(decision.id)).agrees
    assert outcomes.pop("hash")[0] == "decided"
    assert outcomes == {
        "no_decision": ("tie", None), "priority": ("decided", "a"), "status_quo:c": ("decided", "c"), "chair:ann": ("decided", "b"),
        "chair:eve": ("tie", None),
    }  # fmt: skip
    await serve(voter(lambda ballot: "b" if ballot.round == 2 else None, "zoe"))
    decision = await mesh.vote("?", ["a", "b", "c"], method="plurality", tie="runoff")
    assert (decision.outcome, decision.winner, decision.round) == ("decided", "b", 2)
    # Two of four: whether bob has voted again by then decides nothing.
    assert (decision.tally["b"], decision.tally["c"]) == (2, None)
    assert (await mesh.votes.recount(decision.id)).agrees


async def test_a_veto(mesh: Mesh, serve: Serve) -> None:
    await serve_all(serve, {"ann": "a", "bob": "a", "eve": Veto("a"), "zoe": "b"})
    decision = await mesh.vote("?", ["a", "b"], method="plurality", veto=True)
    assert (decision.outcome, decision.winner, decision.tally) == ("decided", "b", {"a": None, "b": 1})
    decision = await mesh.vote("?", ["a", "b"], method="plurality")
    assert (decision.winner, len(decision.invalid)) == ("a", 1)


async def test_who_votes(mesh: Mesh, serve: Serve) -> None:
    with pytest.raises(NoVoters, match="topic 'drinks'"):
        await mesh.vote("?", ["a", "b"], topic="drinks")
    ann = voter("a", "ann", topic="drinks")

    @ann.capability("brew")
    async def brew() -> None: ...

    ids = {"ann": await serve(ann), "bob": await serve(voter("b", "bob"))}
    assert (await mesh.vote("?", ["a", "b"], topic="drinks")).winner == "a"
    assert (await mesh.vote("?", ["a", "b"])).winner == "b"
    decision = await mesh.vote("?", ["a", "b"], topic="drinks", voters=["bob", "ann"], quorum=1)
    assert (decision.winner, set(decision.invalid)) == ("a", {ids["bob"]})
    assert "no voter for topic drinks" in decision.invalid[ids["bob"]]
    assert (await mesh.vote("?", ["a", "b"], topic="drinks", voters="brew")).voters == 1
    with pytest.raises(NoVoters, match="capability 'fly'"):
        await mesh.vote("?", ["a", "b"], voters="fly")
    with pytest.raises(UnknownAgent):
        await mesh.vote("?", ["a", "b"], voters=["nobody"])
    with pytest.raises(InvalidVote, match="already"):
        await mesh.vote("?", ["a", "b"], voters=["bob", ids["bob"]])
    with pytest.raises(InvalidVote, match="twice"):
        await mesh.vote("?", ["a", "b"], voters=["bob", "bob"])


@pytest.mark.parametrize(
    ("options", "rules", "said"),
    [
        (["a"], {}, "2 to 100"),
        ("ab", {}, "2 to 100"),
        (["a", "b", "a"], {}, "'a' is there twice"),
        (["a", "b"], {"method": "acclamation"}, "plurality, majority"),
        (["a", "b"], {"threshold": 0.7}, "supermajority"),
        (["a", "b"], {"method": "supermajority", "threshold": 0.5}, "more than 0.5"),
        (["a", "b"], {"basis": "all"}, "cast"),
        (["a", "b"], {"tie": "coin"}, "no_decision"),
        (["a", "b"], {"tie": "status_quo:z"}, "one of the options"),
        (["a", "b"], {"tie": "chair:nobody"}, "one of the voters"),
        (["a", "b"], {"deadline": 0}, "above 0"),
        (["a", "b"], {"quorum": 3}, "there are 2 voters"),
        (["a", "b"], {"quorum": 0}, "there are 2 voters"),
        (["a", "b"], {"method": "weighted"}, "needs weights"),
        (["a", "b"], {"voters": {"ann": 0, "bob": 0}}, "all weights are 0"),
        (["a", "b"], {"voters": {"ann": 1.5, "bob": 1}}, "whole number"),
        (["a", "b"], {"voters": {"ann": -1, "bob": 1}}, "whole number"),
        (["a", "b"], {"voters": []}, "0 voters"),
    ],
)
async def test_what_cannot_come_to_anything_is_refused(
    mesh: Mesh, serve: Serve, options: Any, rules: Any, said: str
) -> None:
    await serve_all(serve, {"ann": "a", "bob": "b"})
    with pytest.raises(InvalidVote, match=said):
        await mesh.vote("?", options, **rules)
    assert await mesh.votes.listed() == []


async def test_the_same_id_is_the_same_vote(mesh: Mesh, serve: Serve) -> None:
    heard: list[Ballot] = []
    await serve_all(serve, {"ann": "a"}, heard=heard)
    both = await asyncio.gather(*(mesh.vote("?", ["a", "b"], id="once") for _ in range(2)))
    assert both[0] == both[1] == await mesh.vote("?", ["a", "b"], id="once")
    assert len(heard) == 1
    with pytest.raises(VoteConflict):
        await mesh.vote("Another?", ["a", "b"], id="once")
    with pytest.raises(VoteNotFound):
        await mesh.votes.recount("never")


@pytest.mark.leaves_work  # inboxes of agents that never were: there is nobody here who sweeps
async def test_ballots_by_hand_and_cancelling(mesh: Mesh, serve: Serve) -> None:
    from streammesh.motions import Motion

    motion = Motion.make("?", ["a", "b"], change="last")
    id = await mesh.votes.open(motion, {"ann.1": 1, "bob.2": 1, "eve.3": 1})
    assert (await mesh.votes.choose(id, "ann.1", "a")).state == "open"
    assert (await mesh.votes.choose(id, "ann.1", "b")).word == "ok"
    with pytest.raises(BallotRefused, match="not in its electorate"):
        await mesh.votes.choose(id, "eve.2", "a")
    assert await mesh.votes.cancel(id, by="me") == "cancelled"
    assert await mesh.votes.cancel(id) == "cancelled"
    with pytest.raises(BallotRefused, match="cancelled"):
        await mesh.votes.choose(id, "bob.2", "a")
    decision = await mesh.votes.decision(id)
    assert (decision.outcome, decision.reason, decision.silent) == ("cancelled", "cancelled by me", ("bob.2", "eve.3"))
    assert (await mesh.votes.recount(id)).agrees
    assert [one["type"] for one in (await mesh.votes.record(id)).audit] == [
        "open",
        "ballot",
        "ballot",
        "refused",
        "close",
        "refused",
    ]


async def test_who_leaves_or_dies_is_not_waited_for(mesh: Mesh, serve: Serve) -> None:
    await serve_all(serve, {"ann": "a", "bob": "b"})
    asked = asyncio.Event()
    sleeper = Agent("sleeper", lease=1.0, grace=0.05)

    @sleeper.votes()
    async def silent(_: Ballot) -> None:
        asked.set()
        await asyncio.Event().wait()

    id = await serve(sleeper)
    vote = asyncio.create_task(mesh.vote("?", ["a", "b"], deadline=60, quorum=3))
    await asked.wait()
    sleeper.stop()
    async with asyncio.timeout(10):
        decision = await vote
    assert (decision.outcome, decision.reason, decision.dead) == ("no_quorum", "unreachable", (id,))


async def test_in_memory(namespace: str) -> None:
    async with Mesh.connect(f"memory://{namespace}") as mesh:
        agents = [voter("a", "ann"), voter(["b"], "bob"), voter(None, "eve")]
        serving = [asyncio.create_task(agent.serve(mesh)) for agent in agents]

        async def ready() -> bool:
            return [one.state for one in await mesh.agents()] == ["ready"] * 3

        await eventually(ready)
        decision = await mesh.vote("?", ["a", "b"], method="approval")
        assert (decision.outcome, decision.tally, decision.ballots) == ("tie", {"a": 1, "b": 1}, 3)
        assert (await mesh.votes.recount(decision.id)).agrees
        assert (await mesh.collect("ping", 1, timeout=20)).responses[0][1]["said"] == 1
        for agent in agents:
            agent.stop()
        await asyncio.gather(*serving)


async def test_from_a_plain_script(mesh: Mesh, serve: Serve) -> None:
    await serve(voter("a", "ann"))

    def script() -> tuple[Decision, int]:
        with SyncMesh.connect(mesh.url, namespace=mesh.namespace) as plain:
            return plain.reach_consensus("?", ["a", "b"]), len(plain.collect("ping").responses)

    decision, answers = await asyncio.to_thread(script)
    assert (decision.winner, answers) == ("a", 1)


async def test_a_run_votes(mesh: Mesh, serve: Serve) -> None:
    ids = await serve_all(serve, {"ann": "a", "bob": "a", "eve": "b"})
    flow = Agent("flow", lease=1.0)

    @flow.workflow("choose")
    async def choose(run: Run) -> Any:
        first, second = await asyncio.gather(
            run.vote("One?", ["a", "b"]), run.vote("Two?", ["a", "b"], voters=["eve"], method="plurality")
        )
        return [first.winner, second.winner, second.voters, sorted(first.tally)]

    await serve(flow)
    handle = await mesh.start("choose", id="r")
    assert await handle.result(20) == ["a", "b", 1, ["a", "b"]]
    assert [record["what"] for record in await handle.history()].count("vote") == 2
    assert ids


async def test_a_vote_is_cancelled_with_its_run(mesh: Mesh, serve: Serve) -> None:
    never = asyncio.Event()
    sleeper = Agent("sleeper", lease=1.0, grace=0.05)

    @sleeper.votes()
    async def silent(_: Ballot) -> None:
        await never.wait()

    @sleeper.workflow("choose")
    async def choose(run: Run) -> Any:
        return (await run.vote("?", ["a", "b"], deadline=600)).winner

    await serve(sleeper)
    handle = await mesh.start("choose")

    async def opened() -> str:
        return next((id for id, _ in await mesh.votes.listed()), "")

    id = await eventually(opened)
    await handle.cancel()
    with pytest.raises(RunCancelled):
        await handle.result(10)
    decision: Decision = await mesh.votes.decision(id)
    assert (decision.outcome, decision.reason) == ("cancelled", "cancelled by its run")
    never.set()


def answering(name: str, answer: Any) -> Agent:
    agent = Agent(name, lease=1.0, grace=0.05)

    @agent.on("idea")
    async def idea(message: Message) -> Any:
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        return {"from": name, "on": message.payload}

    return agent


async def test_answers_are_collected(mesh: Mesh, serve: Serve) -> None:
    never = asyncio.Event()
    ids = [await serve(answering("ann", 1)), await serve(answering("bob", 1))]
    got = await mesh.collect("idea", {"n": 1}, timeout=20)
    assert got.responses == tuple((id, {"from": id.partition(".")[0], "on": {"n": 1}}) for id in ids)
    assert (got.silent, got.refused, got.dead, got.reason) == ((), {}, (), "all")
    sick, slow = await serve(answering("sick", ValueError("boom"))), await serve(answering("slow", never))
    async with asyncio.timeout(10):
        got = await mesh.collect("idea", at_least=2, timeout=60, stall=0.2)
    assert (len(got.responses), got.silent, got.refused, got.reason) == (
        2,
        (slow,),
        {sick: "ValueError: boom"},
        "stall",
    )
    got = await mesh.collect("idea", expected=1, timeout=60)
    assert got.reason == "expected"
    with pytest.raises(TooFewAnswers, match="2 of at least 3") as caught:
        await mesh.collect("idea", at_least=3, to=[*ids, slow], timeout=0.3)
    assert (caught.value.silent, caught.value.dead) == ((slow,), ())
    with pytest.raises(TooFewAnswers, match="refused"):
        await mesh.collect("idea", to=["sick"], timeout=60)
    with pytest.raises(NoVoters, match="handler for 'none'"):
        await mesh.collect("none")
    with pytest.raises(InvalidVote, match="at_least"):
        await mesh.collect("idea", at_least=9)
    never.set()


async def test_a_run_collects(mesh: Mesh, serve: Serve) -> None:
    ann = answering("ann", 1)

    @ann.workflow("gather")
    async def gather(run: Run) -> Any:
        got = await run.collect("idea", "x", timeout=20)
        return [answer for _, answer in got.responses]

    await serve(ann)
    await serve(answering("bob", 1))
    handle = await mesh.start("gather")
    assert await handle.result(20) == [{"from": "ann", "on": "x"}, {"from": "bob", "on": "x"}]
