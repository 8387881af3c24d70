"""Solving a problem together: ideas, what is said of them, a vote, and one agent that does it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streammesh import Agent, Ballot, Mesh, Message, Run, solve
from streammesh.errors import InvalidVote, RunFailed
from tests.guide.conftest import Serve


def thinker(name: str, idea: Any, likes: str = "", *, heard: list[Ballot] | None = None, builds: bool = True) -> Agent:
    """Has an idea (or waits for ever), says what it thinks of the others, and votes for the idea that it likes."""
    agent = Agent(name, lease=1.0, grace=0.05)

    @agent.on("brainstorm")
    async def brainstorm(message: Message) -> Any:
        if isinstance(idea, asyncio.Event):
            await idea.wait()
        assert message.payload == {"problem": {"goal": "cross the river"}}
        return idea

    @agent.on("critique")
    async def critique(message: Message) -> Any:
        return {one["id"]: f"{name} on {one['idea']}" for one in message.payload["ideas"]}

    @agent.votes("solve")
    async def vote(ballot: Ballot) -> str | None:
        if heard is not None:
            heard.append(ballot)
        found = [one["id"] for one in ballot.payload["ideas"] if one["idea"] == likes and one["id"] in ballot.options]
        return found[0] if found else None

    if builds:

        @agent.capability("build")
        async def build(problem: Any, idea: str, critiques: list[Any]) -> str:
            return f"{name} has built a {idea}; {len(critiques)} had something to say"

    agent.workflow("solve")(solve)
    return agent


async def test_brainstorm_critique_vote_implement(mesh: Mesh, serve: Serve) -> None:
    heard: list[Ballot] = []
    ann = await serve(thinker("ann", "bridge", "bridge", heard=heard))
    bob = await serve(thinker("bob", "boat", "bridge", heard=heard))
    eve = await serve(thinker("eve", None, "bridge", heard=heard))
    run = await mesh.start("solve", problem={"goal": "cross the river"}, implement="build", quorum=3)
    solved = await run.result(20)
    assert solved["idea"] == {"id": "idea-1", "author": ann, "idea": "bridge"}
    assert (solved["owner"], solved["result"]) == (ann, "ann has built a bridge; 3 had something to say")
    assert solved["ideas"][1:] == [{"id": "idea-2", "author": bob, "idea": "boat"}]
    brainstorm, critique, vote, implement = solved["phases"]
    assert [one["phase"] for one in solved["phases"]] == ["brainstorm", "critique", "vote", "implement"]
    assert (brainstorm["asked"], brainstorm["silent"]) == (sorted([ann, bob, eve]), [])
    assert [one["author"] for one in solved["critiques"]] == critique["answered"]
    assert (vote["outcome"], vote["winner"], vote["support"], vote["silent"]) == ("decided", "idea-1", 2, [])
    assert implement["owner"] == ann
    assert len({one["inputs"] for one in solved["phases"]}) == 4
    # Voters see what was said; nobody is offered its own idea.
    assert {one.voter: one.options for one in heard} == {
        ann: ("idea-2",), bob: ("idea-1",), eve: ("idea-1", "idea-2"),
    }  # fmt: skip
    assert heard[0].payload["critiques"] == solved["critiques"]
    assert (await mesh.votes.recount(vote["vote"])).agrees
    assert dict(await run.status()) == {"phase": "implement"}


async def test_the_same_inputs_have_the_same_hash(mesh: Mesh, serve: Serve) -> None:
    await serve(thinker("ann", "bridge"))
    runs = [await mesh.start("solve", problem={"goal": "cross the river"}, critique=None) for _ in range(2)]
    first, second = await asyncio.gather(*(run.result(20) for run in runs))
    assert first == second
    # One idea needs no vote, and what nobody implements is the idea itself.
    assert (first["result"], first["owner"], len(first["phases"])) == ("bridge", "", 1)


async def test_who_is_silent_is_on_record_and_holds_nobody_up(mesh: Mesh, serve: Serve) -> None:
    never = asyncio.Event()
    ann = await serve(thinker("ann", "bridge"))
    bob = await serve(thinker("bob", never, builds=False))
    run = await mesh.start("solve", problem={"goal": "cross the river"}, stall=0.2, timeout=60, implement="build")
    solved = await run.result(20)
    first = solved["phases"][0]
    assert (first["answered"], first["silent"], first["reason"]) == ([ann], [bob], "stall")
    assert solved["owner"] == ann
    run = await mesh.start("solve", problem={"goal": "cross the river"}, at_least=2, timeout=0.3)
    with pytest.raises(RunFailed, match="1 of at least 2 answers came"):
        await run.result(20)
    never.set()


async def test_the_idea_of_an_agent_that_cannot_do_it_is_given_to_one_that_can(mesh: Mesh, serve: Serve) -> None:
    await serve(thinker("ann", "bridge", builds=False))
    builder = Agent("builder", lease=1.0)

    @builder.capability("build")
    async def build(problem: Any, idea: str, critiques: list[Any]) -> str:
        return f"a {idea}"

    id = await serve(builder)
    run = await mesh.start("solve", problem={"goal": "cross the river"}, implement="build")
    solved = await run.result(20)
    assert (solved["idea"]["idea"], solved["owner"], solved["result"]) == ("bridge", id, "a bridge")


async def test_no_idea_and_no_decision_are_failures_that_say_so(mesh: Mesh, serve: Serve) -> None:
    await serve(thinker("ann", None))
    run = await mesh.start("solve", problem={"goal": "cross the river"})
    with pytest.raises(RunFailed, match="none had an idea"):
        await run.result(20)
    for name in ("bob", "eve"):
        await serve(thinker(name, f"{name}'s boat"))
    run = await mesh.start("solve", problem={"goal": "cross the river"})
    with pytest.raises(RunFailed, match="came to no_majority"):
        await run.result(20)


async def test_it_is_a_function_for_workflows_of_your_own(mesh: Mesh, serve: Serve) -> None:
    agent = thinker("ann", "bridge")

    @agent.workflow("travel")
    async def travel(run: Run) -> Any:
        return (await solve(run, {"goal": "cross the river"}, implement="build", critique=None))["result"]

    await serve(agent)
    assert await (await mesh.start("travel")).result(20) == "ann has built a bridge; 0 had something to say"


async def test_a_vote_may_bar_voters_from_options(mesh: Mesh, serve: Serve) -> None:
    def voter(name: str, choice: int | str) -> Agent:
        agent = Agent(name, lease=1.0)

        @agent.votes()
        async def vote(ballot: Ballot) -> str:
            heard[ballot.voter] = ballot.options
            return ballot.options[choice] if isinstance(choice, int) else choice

        return agent

    heard: dict[str, tuple[str, ...]] = {}
    ann, bob, eve = [await serve(voter(name, choice)) for name, choice in (("ann", "a"), ("bob", 0), ("eve", "b"))]
    decision = await mesh.vote("?", ["a", "b"], barred={ann: ["a"], bob: ["a"]}, change="last", deadline=1)
    assert heard == {ann: ("b",), bob: ("b",), eve: ("a", "b")}
    # Who insists has no vote.
    assert (decision.winner, decision.support, decision.invalid) == ("b", 2, {ann: "no such option"})
    assert (await mesh.votes.recount(decision.id)).agrees
    with pytest.raises(InvalidVote, match="barred"):
        await mesh.vote("?", ["a", "b"], barred={ann: ["c"]})
