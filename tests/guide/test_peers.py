"""Every agent knows who else is here, without asking the server: from memory, kept by the feed of who comes and goes."""

from __future__ import annotations

import asyncio
import time

from streammesh import Agent, Membership, Mesh
from tests.eventually import eventually
from tests.guide.conftest import Serve


def reader(name: str = "reader", **options: float) -> Agent:
    agent = Agent(name, lease=options.get("lease", 1.0))

    @agent.capability("read")
    async def read() -> str:
        return "read"

    return agent


async def test_peers_are_known_without_a_read_and_anew_when_wanted(mesh: Mesh, serve: Serve) -> None:
    assert await mesh.peers() == []
    id = await serve(reader())
    (peer,) = await mesh.peers("read", fresh=True)
    assert (peer.id, peer.name, peer.capabilities, peer.slots, peer.busy) == (id, "reader", ("read",), 32, 0)
    assert (peer.state, peer.status, peer.willing, peer.full) == ("ready", "alive", True, False)
    assert await mesh.peers("write") == []
    assert [one.id for one in (await mesh.roster.page(0, 10))[0]] == [id]


async def test_an_agent_follows_who_comes_and_goes(url: str, namespace: str) -> None:
    heard: list[Membership] = []
    observer, other = reader("observer"), reader("other")
    observer.on_join(lambda one: heard.append(one))

    @observer.on_leave
    async def left(one: Membership) -> None:
        heard.append(one)

    def connected() -> Mesh:
        return Mesh.connect(url, namespace=namespace, patience=None)

    async with connected() as own, connected() as theirs:
        first = asyncio.create_task(observer.serve(own))
        await eventually(lambda: observer.serving and own.roster.get(observer.serving.id))
        second = asyncio.create_task(other.serve(theirs))
        await eventually(lambda: any(one.name == "other" and one.willing for one in own.roster.known("read")))
        other.stop()
        await second
        await eventually(lambda: len(heard) == 2 and not any(one.name == "other" for one in own.roster.known()))
        assert [(one.type, one.reason, one.agent) for one in heard] == [
            ("joined", "new", "other.2"), ("left", "left", "other.2"),
        ]  # fmt: skip
        # The feed can be read again, from any place of it.
        feed = own.members()
        told = [await anext(feed) for _ in range(6)]
        await feed.aclose()  # type: ignore[attr-defined]
        assert [one.cursor for one in told if one.type in ("joined", "left") and one.agent == "other.2"] == [
            one.cursor for one in heard
        ]
        again = own.members(since=heard[0].cursor)
        assert "other.2" in (await anext(again)).agent
        await again.aclose()  # type: ignore[attr-defined]
        observer.stop()
        await first


async def test_looking_at_the_peers_costs_no_read(mesh: Mesh, serve: Serve) -> None:
    for _ in range(3):
        await serve(reader())
    await mesh.peers(fresh=True)
    took = []
    for _ in range(1000):
        began = time.perf_counter()
        assert len(await mesh.peers("read")) == 3
        took.append(time.perf_counter() - began)
    assert sorted(took)[989] <= 0.001, f"p99 of a cached look is {sorted(took)[989] * 1000:.3f} ms"
