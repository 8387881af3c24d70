"""Whoever is killed is missed within a second or so, and nobody else is: not by connections cut, not by standing still."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streammesh import Agent, Mesh
from streammesh.presence import Presence
from tests.eventually import eventually
from tests.servers import Server

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[1]
LEASE = 30.0

PROGRAM = """
import asyncio, sys
from streammesh import Agent
agent = Agent("gone", slots=1, lease=30.0)
@agent.capability("hold")
async def hold():
    await asyncio.sleep(600)
agent.run(sys.argv[1], namespace=sys.argv[2])
"""


@contextlib.asynccontextmanager
async def victim(url: str, namespace: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, url, namespace, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def peer(mesh: Mesh, name: str = "peer", slots: int = 4) -> AsyncIterator[Agent]:
    agent = Agent(name, slots=slots, lease=LEASE)

    @agent.capability("hold" if name == "peer" else "rest")
    async def hold() -> str:
        return name

    serving = asyncio.create_task(agent.serve(mesh))
    try:
        await eventually(lambda: agent.serving is not None and agent.serving._state == "ready")
        yield agent
    finally:
        agent.stop()
        await serving


async def agents(mesh: Mesh) -> list[str]:
    return sorted(one.name for one in await mesh.registry.agents())


async def deaths(mesh: Mesh) -> list[str]:
    entries = await mesh.store.command("XRANGE", mesh.keys.members, "-", "+")
    return [flat[3] for _, flat in entries if flat[1] == "died"]


def presence(agent: Agent) -> Presence:
    assert agent.serving is not None
    return agent.serving.presence


async def looks(agent: Agent, count: int) -> None:
    """Wait until the agent has looked so many times more."""
    before = presence(agent).looks
    await eventually(lambda: presence(agent).looks >= before + count, timeout=30)


async def held_by_the_victim(mesh: Mesh) -> str:
    task = await mesh.enqueue("hold")

    async def runs() -> bool:
        return (await task.record()).state == "running"

    await eventually(runs, timeout=20)
    return task.id


async def test_the_work_of_a_killed_agent_moves_long_before_its_lease_ends(url: str, namespace: str) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh, victim(url, namespace) as process:
        id = await held_by_the_victim(mesh)
        async with Mesh.connect(url, namespace=namespace, patience=None) as other, peer(other) as agent:
            await looks(agent, 2)
            process.kill()
            killed = time.monotonic()
            assert await mesh.task(id).result(10) == "peer"
            assert time.monotonic() - killed < LEASE / 6
            assert await deaths(mesh) == ["gone.1"]
            assert presence(agent).found == 1


async def test_who_stands_still_is_not_gone(url: str, namespace: str) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh, victim(url, namespace) as process:
        await held_by_the_victim(mesh)
        async with peer(mesh) as agent:
            await looks(agent, 1)
            process.send_signal(signal.SIGSTOP)
            await looks(agent, 6)
            process.send_signal(signal.SIGCONT)
            assert await deaths(mesh) == []
            assert await agents(mesh) == ["gone", "peer"]


@pytest.mark.parametrize("whole", [True, False])
async def test_who_lost_its_connections_is_not_gone(url: str, namespace: str, whole: bool) -> None:
    """All of them, or all of one agent whose slots are full, so that it asks the server nothing: over and over."""
    async with (
        Mesh.connect(url, namespace=namespace) as mesh,
        victim(url, namespace),
    ):
        await held_by_the_victim(mesh)
        async with peer(mesh) as agent:
            await looks(agent, 1)
            for _ in range(3):
                said = await mesh.store.command("CLIENT", "LIST", "TYPE", "normal")
                for line in said.splitlines():
                    words = dict(word.split("=", 1) for word in line.split())
                    owner = mesh.keys.owner("" if whole else "gone.1")
                    if words["name"].startswith(owner):
                        await mesh.store.command("CLIENT", "KILL", "ID", words["id"])
                await looks(agent, 1)
            await looks(agent, 2)
            assert presence(agent).found == 0
            assert await deaths(mesh) == []


async def test_a_server_that_begins_anew_makes_nobody_look_gone(tmp_path: Path, namespace: str) -> None:
    server = Server("valkey", tmp_path)
    server.start()
    try:
        async with Mesh.connect(server.url, namespace=namespace, patience=None) as mesh, victim(server.url, namespace):
            await held_by_the_victim(mesh)
            async with peer(mesh) as agent:
                await looks(agent, 2)
                for _ in range(2):
                    server.kill()
                    server.start()
                    await looks(agent, 6)
                assert await deaths(mesh) == []
                assert await agents(mesh) == ["gone", "peer"]
    finally:
        server.stop()


async def test_where_it_may_not_be_asked_leases_decide(tmp_path: Path, namespace: str) -> None:
    server = Server("valkey", tmp_path)
    server.start()
    try:
        async with Mesh.connect(server.url, namespace=namespace) as mesh:
            await mesh.store.command("ACL", "SETUSER", "shy", "on", "nopass", "~*", "+@all", "-client|list")
            shy = server.url.replace("://", "://shy:x@")
            async with (
                Mesh.connect(shy, namespace=namespace) as one,
                Mesh.connect(shy, namespace=namespace) as two,
                peer(one) as agent,
                peer(two, "idle"),
            ):
                # It ends by itself.
                await asyncio.wait_for(Presence(one, "peer.1", lambda: 2).loop(), 15)
                assert presence(agent).looks == 0
                assert await agents(mesh) == ["idle", "peer"]
    finally:
        server.stop()
