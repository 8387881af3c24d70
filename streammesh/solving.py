"""Solving a problem together: brainstorm, critique, vote, implement; a workflow that no crash can stop.

    agent.workflow("solve")(solve)                                  # any agent may execute it
    run = await mesh.start("solve", problem={"goal": "…"}, implement="build")

Agents take part by what they declare:

    @agent.on("brainstorm")          {problem} -> an idea (any JSON), or None for none
    @agent.on("critique")            {problem, ideas: [{id, author, idea}]} -> what is to be said of them (any JSON)
    @agent.votes("solve")            a ballot whose options are the ids of ideas; its payload is {problem, ideas, critiques}
    @agent.capability("build")       {problem, idea, critiques} -> the result

Each phase is one step of the run, so that whoever takes it over goes on behind the last phase that was closed. What a phase is
given does not change once it was asked: its hash stands in the result.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from streammesh import codec
from streammesh.errors import VoteError
from streammesh.motions import Collected
from streammesh.workflow import Run

__all__ = ["solve"]


async def solve(
    run: Run, problem: Any, *, brainstorm: str = "brainstorm", critique: str | None = "critique", topic: str = "solve",
    implement: str | None = None, at_least: int = 1, critiques: int = 1, timeout: float = 30.0, stall: float | None = None,
    method: str = "plurality", tie: str = "hash", quorum: int | None = None, own: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Solve ``problem`` with whoever is there; may also be called in a workflow of your own.

    ``brainstorm`` and ``critique`` are message types (critique=None: no such phase), ``topic`` that of the vote, ``implement`` a
    capability (None: the idea is the result). ``at_least`` ideas and ``critiques`` have to come; a phase ends when all have
    answered or died, ``stall`` seconds after the last of enough answers, or after ``timeout`` seconds. ``own=False``: nobody
    may choose its own idea. ``method``, ``tie`` and ``quorum`` as for `Run.vote`.

    Returns {idea, ideas, critiques, owner, result, phases}. An idea is {id, author, idea}; ``owner`` the agent that implemented
    it was given to (should it die, another one that offers the capability does it), its author where that can. A phase is
    {phase, inputs: a hash, asked, answered, silent, dead, refused, …}, the middle four as lists of agents, refused with reasons.
    Raises TooFewAnswers, StepFailed (nobody to ask), VoteError when the vote comes to no decision.
    """
    phases: list[dict[str, Any]] = []

    async def gathered(phase: str, type: str, payload: dict[str, Any], least: int) -> list[tuple[str, Any]]:
        run.set_status(phase=phase)
        got = await run.collect(type, payload, at_least=least, timeout=timeout, stall=stall)
        phases.append({"phase": phase, "inputs": hashed(payload), **heard(got)})
        return [(agent, said) for agent, said in got.responses if said is not None]

    answers = await gathered("brainstorm", brainstorm, {"problem": problem}, at_least)
    ideas = [{"id": f"idea-{n}", "author": author, "idea": idea} for n, (author, idea) in enumerate(answers, 1)]
    if not ideas:
        raise VoteError(f"solving {run.id}: all who were asked answered, and none had an idea")
    said: list[tuple[str, Any]] = []
    if critique is not None:
        said = await gathered("critique", critique, {"problem": problem, "ideas": ideas}, critiques)
    papers = {
        "problem": problem,
        "ideas": ideas,
        "critiques": [{"author": author, "said": text} for author, text in said],
    }

    run.set_status(phase="vote")
    chosen = ideas[0]
    if len(ideas) > 1:
        barred = {} if own else {str(idea["author"]): [str(idea["id"])] for idea in ideas}
        decision = await run.vote(
            "Which idea is to be implemented?", [str(idea["id"]) for idea in ideas], topic=topic, payload=papers, method=method,
            tie=tie, quorum=quorum, deadline=timeout, barred=barred,
        )  # fmt: skip
        phases.append({
            "phase": "vote", "inputs": hashed(papers), "vote": decision.id, "outcome": decision.outcome, "winner": decision.winner,
            "support": decision.support, "of": decision.cast, "silent": list(decision.silent), "dead": list(decision.dead),
            "refused": dict(decision.invalid), "reason": decision.reason,
        })  # fmt: skip
        if decision.winner is None:
            raise VoteError(f"solving {run.id}: the vote {decision.id} came to {decision.outcome} ({decision.reason})")
        chosen = next(idea for idea in ideas if idea["id"] == decision.winner)

    owner, result = "", chosen["idea"]
    if implement is not None:
        run.set_status(phase="implement")
        work = {"problem": problem, "idea": chosen["idea"], "critiques": papers["critiques"]}
        able = await run.agents(implement)
        author = str(chosen["author"])
        owner = author if author in able else run.random().choice(able) if able else ""
        phases.append({"phase": "implement", "inputs": hashed(work), "owner": owner})
        result = await run.call(implement, work, to=owner or None)
    return {
        "idea": chosen,
        "ideas": ideas,
        "critiques": papers["critiques"],
        "owner": owner,
        "result": result,
        "phases": phases,
    }


def heard(got: Collected) -> dict[str, Any]:
    """Who was asked, who answered, and who did not."""
    answered = [agent for agent, _ in got.responses]
    absent = {"silent": list(got.silent), "dead": list(got.dead), "refused": dict(got.refused)}
    asked = sorted([*answered, *got.silent, *got.dead, *got.refused])
    return {"asked": asked, "answered": answered, **absent, "reason": got.reason}


def hashed(inputs: dict[str, Any]) -> str:
    """The same for the same inputs, whoever computes it."""
    return sha256(codec.encode(inputs, sort=True)).hexdigest()[:16]
