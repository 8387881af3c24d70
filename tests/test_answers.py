"""Every agent answers `ping`, `info` and `stats` of itself, and a handler of the user's takes the place of one."""

from __future__ import annotations

import asyncio

import pytest

from streammesh import Agent, Mesh, Message
from streammesh.errors import NotUnderstood
from tests.eventually import eventually


@pytest.mark.anyio
async def test_an_agent_without_message_handlers_answers(url: str, namespace: str) -> None:
    agent = Agent("quiet", slots=3, lease=2.0)

    @agent.capability("noop")
    async def noop() -> None: ...

    async with Mesh.connect(url, namespace=namespace) as mesh:
        serving = asyncio.create_task(agent.serve(mesh))
        (one,) = await eventually(mesh.agents)
        await mesh.call("noop", timeout=10)
        assert await mesh.request("ping", 7, to=one.id, timeout=10) == {"agent": one.id, "said": 7}
        info = await mesh.request("info", to="quiet", timeout=10)
        assert (info["agent"], info["slots"], info["capabilities"], info["state"]) == (one.id, 3, ["noop"], "ready")
        stats = await mesh.request("stats", timeout=10)
        assert (stats["agent"], stats["stale"]) == (one.id, 0)
        assert stats["claimed"] >= 1
        assert one.types == ("gossip", "info", "ping", "stats")
        with pytest.raises(NotUnderstood, match="gossip, info, ping, stats"):
            await mesh.request("unheard-of", to=one.id, timeout=10)
        agent.stop()
        await serving


@pytest.mark.anyio
async def test_a_handler_of_the_user_takes_the_place(url: str, namespace: str) -> None:
    agent = Agent("own")

    @agent.on("ping")
    def ping(message: Message) -> str:
        return "pong"

    async with Mesh.connect(url, namespace=namespace) as mesh:
        serving = asyncio.create_task(agent.serve(mesh))
        await eventually(mesh.agents)
        assert await mesh.request("ping", timeout=10) == "pong"
        agent.stop()
        await serving


@pytest.mark.anyio
async def test_who_has_left_is_in_the_members_feed_with_what_it_offered(url: str, namespace: str) -> None:
    agent = Agent("leaver")

    @agent.capability("alpha")
    async def alpha() -> None: ...

    @agent.capability("beta")
    async def beta() -> None: ...

    async with Mesh.connect(url, namespace=namespace) as mesh:
        serving = asyncio.create_task(agent.serve(mesh))
        await eventually(mesh.agents)
        agent.stop()
        await serving
        ((_, flat),) = await mesh.store.command("XREVRANGE", mesh.keys.members, "+", "-", "COUNT", 1)
        event = dict(zip(flat[::2], flat[1::2], strict=True))
        assert (event["type"], sorted(event["capabilities"].split())) == ("left", ["alpha", "beta"])
