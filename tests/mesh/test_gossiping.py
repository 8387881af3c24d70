"""Gossip between agents at work: what one tells, all know; what one suffers from a peer, all know of; nobody needs the registry for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streammesh import Agent, Mesh, gossiping
from streammesh.errors import InvalidName, PayloadTooLarge, RequestTimeout
from streammesh.gossiping import Gossiping
from tests.eventually import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossiping, "INTERVAL", 0.05)


@pytest.fixture(params=["memory", "real"])
async def mesh(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Mesh]:
    url = f"memory://{namespace}" if request.param == "memory" else request.getfixturevalue("url")
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


def worker(name: str, *, gossip: bool | None = True) -> Agent:
    agent = Agent(name, lease=1.0, grace=1.0, gossip=gossip)

    @agent.on("hello")
    async def hello(_: object) -> str:
        return name

    return agent


@asynccontextmanager
async def working(mesh: Mesh, *agents: Agent) -> AsyncIterator[list[Gossiping]]:
    """All of them at work, each on a connection of its own."""

    async def work(agent: Agent) -> None:
        async with Mesh.connect(mesh.url, namespace=mesh.namespace, patience=None) as own:
            await agent.serve(own)

    began = [asyncio.create_task(work(agent)) for agent in agents]
    try:
        await eventually(lambda: all(agent.gossip for agent in agents))
        yield [agent.gossip for agent in agents if agent.gossip]
    finally:
        for agent in agents:
            agent.stop()
        await asyncio.gather(*began)


async def test_what_one_tells_all_know(mesh: Mesh) -> None:
    async with working(mesh, *(worker(f"w{n}") for n in range(4))) as told:
        one, *others = told
        one.set("mood", {"is": "good"})
        await eventually(lambda: all(other.get("mood", one.state.me) == {"is": "good"} for other in others))
        assert one.delete("mood")
        await eventually(lambda: all(other.get("mood", one.state.me) is None for other in others))
        await eventually(lambda: all(len(each.cards()) == 4 for each in told))
        assert others[0].cards()[one.state.me]["name"] == "w0"
        with pytest.raises(InvalidName, match="begin with"):
            one.set("mesh.card", {})
        with pytest.raises(PayloadTooLarge, match="say less"):
            one.set("large", "x" * 9000)

        async def converged() -> bool:
            roots = [agent.fields.get("root") for agent in await mesh.agents()]
            return len(roots) == 4 and len(set(roots)) == 1 and bool(roots[0])

        await eventually(converged)
        assert {each.state.counters.unreadable for each in told} == {0}


async def test_what_one_suffers_from_a_peer_all_know_of(mesh: Mesh) -> None:
    agents = [worker(f"w{n}") for n in range(3)]

    @agents[1].on("never")
    async def never(_: object) -> None:
        await asyncio.sleep(5)

    async with working(mesh, *agents) as told:
        asking, silent, third = agents
        assert asking.serving
        assert silent.serving
        assert third.serving
        own = asking.serving.detecting._mesh
        for _ in range(4):
            with pytest.raises(RequestTimeout):
                await own.request("never", timeout=0.1)
        bad, asker = silent.serving.id, asking.serving.id
        await eventually(lambda: told[2].observed(bad).get(asker, [0, 0, 0])[1:] == [1.0, 1])
        detecting = asking.serving.detecting
        await eventually(lambda: detecting.suspicion.why(bad) == "breaker")
        assert [peer.status for peer in own.roster.known() if peer.id == bad] == ["suspect"]
        # One alone is not believed; a second one is.
        assert third.serving.detecting.suspicion.why(bad) == ""
        third.serving.detecting.suspicion.reported("w9.99", [bad])
        await eventually(lambda: third.serving and third.serving.detecting.suspicion.why(bad) == "peers")


async def test_who_reads_that_he_is_suspected_beats_at_once(mesh: Mesh) -> None:
    one, two = worker("one"), worker("two")
    async with working(mesh, one, two) as told:
        hurried = asyncio.Event()
        told[1].hurry = hurried.set
        assert one.serving
        one.serving.detecting.suspicion.firsthand = lambda: (told[1].state.me,)  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            await hurried.wait()


async def test_nobody_gossips_below_ten_unless_asked_for(mesh: Mesh) -> None:
    async with working(mesh, worker("quiet", gossip=None), worker("never", gossip=False)) as told:
        assert [each.active for each in told] == [False, False]
        assert [each.root for each in told] == ["", ""]
        for each in told:
            each._detecting.live = tuple(f"a.{n}" for n in range(10))
        assert [each.active for each in told] == [True, False]


async def test_a_lost_registry_is_whole_again_before_anybody_beats_in_turn(url: str, namespace: str) -> None:
    agents = [worker(f"w{n}", gossip=None) for n in range(4)]
    for agent in agents:
        agent.lease = 20.0
    async with Mesh.connect(url, namespace=namespace) as mesh, working(mesh, *agents):
        keys = mesh.keys
        lost = [keys.agents, *(keys.agent(one.id) for one in await mesh.agents())]
        assert len(lost) == 5
        await mesh.store.command("DEL", *lost)
        assert agents[0].gossip
        agents[0].gossip.hurry()

        async def whole() -> bool:
            return len(await mesh.agents()) == 4

        await eventually(whole, 2, "beats come every five seconds, yet all are back at once")


async def test_operators_are_answered(mesh: Mesh) -> None:
    async with working(mesh, worker("one"), worker("two")) as told:
        me = told[0].state.me

        async def ask(**asked: object) -> dict[str, object]:
            answer: dict[str, object] = await mesh.request("gossip", asked, to=me, timeout=5)
            return answer

        assert (await ask(ask="set", key="zone", value="north"))["values"] == {"zone": "north"}
        await eventually(lambda: told[1].get("zone", me) == "north")
        assert (await ask(ask="get", key="zone"))["values"] == {"zone": "north"}
        assert (await ask(ask="delete", key="zone"))["deleted"] is True
        await eventually(lambda: all(len(each.cards()) == 2 for each in told))
        digest = await ask(ask="digest")
        assert [row[0] for row in digest["owners"]] == sorted(each.state.me for each in told)  # type: ignore[attr-defined]
        await eventually(lambda: told[0].state.peers)
        assert list((await ask(ask="peers"))["peers"]) == [told[1].state.me]  # type: ignore[call-overload]
        assert "expected" in str((await ask(ask="nonsense"))["error"])
