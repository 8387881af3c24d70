"""How the mesh chooses a summary: proposals, scores, votes; auctions for what is long; and what happens when nobody agrees."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streammesh import Agent, Mesh
from tests.eventually import eventually
from workers import critic, digest, editor, keywords, reader, summarizer

SHORT = """# Tides

The north wind brings rain to the coast in winter. Rain from the north wind fills the rivers of the coast. People
keep umbrellas near the door all year. The rivers carry the rain of winter back to the sea. A cat sleeps on the
warm roof of the mill. Winter rain and the north wind shape the coast. The mill stands beside the river since then.
"""
LONG = "# Ships\n\n" + "\n\n".join(
    f"The keeper of lighthouse {n} counts the ships that pass in the night. Ship {n} has a lamp of its own."
    for n in range(120)
)


@contextlib.asynccontextmanager
async def at_work(mesh: Mesh, *agents: Agent) -> AsyncIterator[None]:
    """These agents serve, each on a connection of its own, in the order in which they are given."""
    serving: list[tuple[Agent, asyncio.Task[None]]] = []

    async def work(agent: Agent) -> None:
        async with Mesh.connect(mesh.url, namespace=mesh.namespace, patience=None) as own:
            await agent.serve(own)

    async def ready() -> bool:
        return [one.state for one in await mesh.agents()].count("ready") == len(serving)

    try:
        for agent in agents:
            serving.append((agent, asyncio.create_task(work(agent))))
            await eventually(ready, what=f"{agent.name} is ready")
        yield
    finally:
        for agent, _ in serving:
            agent.stop()
        await asyncio.gather(*(task for _, task in serving))


def several(worker: Agent, count: int) -> list[Agent]:
    """As many processes of a worker would be: the same handlers under ids of their own."""
    made = [Agent(worker.name, slots=4, lease=2.0) for _ in range(count)]
    for one in made:
        one.include(worker)
    return made


async def digested(mesh: Mesh, folder: Path) -> dict[str, Any]:
    run = await mesh.start("digest", folder=str(folder))
    found: dict[str, Any] = await run.result(30)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "long.md").write_text(LONG)
    (tmp_path / "short.md").write_text(SHORT)
    return tmp_path


async def test_summarizers_propose_critics_vote_and_the_long_one_is_auctioned(
    url: str, namespace: str, folder: Path
) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        others = (keywords.agent, reader.agent, editor.agent, digest.agent)
        async with at_work(mesh, *several(summarizer.agent, 3), *several(critic.agent, 3), *others):
            made = await digested(mesh, folder)
            ((vote, asked), *rest) = [
                (id, one) for id, one in await mesh.votes.listed() if one["topic"] == "best-summary"
            ]
            assert rest == []
            decision = await mesh.votes.decision(vote)
    assert asked["question"] == "Which summary of Tides?"
    assert (decision.voters, decision.invalid) == (3, {})
    how = f"by {decision.support} of {decision.cast} votes" if decision.winner else "by its score: the vote came to tie"
    assert f"*Summary:* {decision.winner or ''}" in made["markdown"]
    assert f", {how}\n" in made["markdown"]
    assert ", auctioned\n" in made["markdown"]
    assert sum(made["methods"].values()) == made["documents"] == 2


async def test_without_another_summarizer_there_is_nothing_to_vote_on(url: str, namespace: str, folder: Path) -> None:
    async with (
        Mesh.connect(url, namespace=namespace) as mesh,
        at_work(mesh, *several(summarizer.agent, 1), keywords.agent, reader.agent, editor.agent, digest.agent),
    ):
        made = await digested(mesh, folder)
        assert [one["topic"] for _, one in await mesh.votes.listed()] == ["propose-summary"]
    assert ", the only proposal\n" in made["markdown"]


async def test_without_a_voter_the_scores_decide(url: str, namespace: str, folder: Path) -> None:
    dumb = Agent("dumb")
    dumb.capability("criticize")(critic.criticize)
    async with (
        Mesh.connect(url, namespace=namespace) as mesh,
        at_work(mesh, *several(summarizer.agent, 3), dumb, keywords.agent, reader.agent, editor.agent, digest.agent),
    ):
        made = await digested(mesh, folder)
    assert "by its score: NoVoters: no live agent votes on topic 'best-summary'" in made["markdown"]


def test_what_is_proposed_twice_is_one_proposal() -> None:
    made = [
        {"method": "lead", "sentences": ["A."]},
        {"method": "frequency", "sentences": ["B."]},
        {"method": "graph", "sentences": ["A."]},
    ]
    assert digest.distinct(made) == {"graph": ["A."], "frequency": ["B."]}


def test_neighbours_differ() -> None:
    assert len({summarizer.own(f"summarizer.{epoch}") for epoch in (7, 8, 9)}) == 3
