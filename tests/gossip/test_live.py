"""Ten agents at work on a real server: they gossip without being told to, and come to know the same."""

from __future__ import annotations

import asyncio

import pytest

from streammesh import Agent, Mesh, gossiping
from tests.eventually import eventually

pytestmark = pytest.mark.anyio


def worker(name: str) -> Agent:
    agent = Agent(name, lease=5.0, grace=1.0)

    @agent.on("hello")
    async def hello(_: object) -> str:
        return name

    return agent


async def test_ten_agents_converge(url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossiping, "INTERVAL", 0.1)
    agents = [worker(f"w{n}") for n in range(gossiping.ENOUGH)]

    async def work(agent: Agent) -> None:
        async with Mesh.connect(url, namespace=namespace, patience=None) as own:
            await agent.serve(own)

    async with Mesh.connect(url, namespace=namespace) as mesh:
        began = [asyncio.create_task(work(agent)) for agent in agents]
        try:
            await eventually(lambda: all(agent.gossip and agent.gossip.active for agent in agents), timeout=20)
            told = [agent.gossip for agent in agents if agent.gossip]
            for one in told:
                one.set("number", one.state.me)
            names = [one.state.me for one in told]
            await eventually(lambda: all(one.get("number", name) == name for one in told for name in names), timeout=20)
            await eventually(lambda: len({one.root for one in told}) == 1, timeout=20)

            async def cards_agree() -> bool:
                roots = [one.fields.get("root") for one in await mesh.agents()]
                return len(roots) == len(told) and len(set(roots)) == 1 and bool(roots[0])

            await eventually(cards_agree, timeout=20)
            assert {one.state.counters.unreadable for one in told} == {0}
        finally:
            for agent in agents:
                agent.stop()
            await asyncio.gather(*began)
