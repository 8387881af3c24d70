"""Agents also talk: to one, to all, or with a question that somebody answers, or that fails as soon as nobody can."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streammesh import Agent, Mesh, Message
from streammesh.errors import AgentDied, NoCapableAgent, NotUnderstood, RemoteError, RequestTimeout, UnknownAgent
from tests.eventually import eventually
from tests.guide.conftest import Serve


def gossip(heard: list[Message], **options: float) -> Agent:
    agent = Agent("gossip", lease=options.get("lease", 1.0))

    @agent.on("news")
    async def news(message: Message) -> None:
        heard.append(message)

    @agent.on("ask")
    def ask(message: Message) -> dict[str, object]:
        if message.payload is None:
            raise ValueError("ask what?")
        return {"you asked": message.payload}

    @agent.on("ponder")
    async def ponder(_: Message) -> None:
        await asyncio.Event().wait()

    return agent


async def test_a_message_goes_to_one_agent(mesh: Mesh, serve: Serve) -> None:
    heard: list[Message] = []
    id = await serve(gossip(heard))
    sent = [await mesh.send(id, "news", {"n": 1}), await mesh.send("gossip", "news", [2])]
    await eventually(lambda: len(heard) == 2)
    assert [message.id for message in heard] == sent
    assert [message.payload for message in heard] == [{"n": 1}, [2]]
    assert heard[0].source.startswith("client-")


async def test_a_broadcast_reaches_everybody_once(mesh: Mesh, serve: Serve) -> None:
    heard: list[list[Message]] = [[], [], []]
    for one in heard:
        await serve(gossip(one))
    sent = await mesh.broadcast("news", "rain")
    await eventually(lambda: all(heard))
    assert [[message.id for message in one] for one in heard] == [[sent]] * 3


async def test_a_request_brings_an_answer(mesh: Mesh, serve: Serve) -> None:
    id = await serve(gossip([]))
    assert await mesh.request("ask", 42, timeout=5) == {"you asked": 42}
    assert await mesh.request("ask", 42, to=id, timeout=5) == {"you asked": 42}
    assert await mesh.request("ask", 42, to="gossip", timeout=5) == {"you asked": 42}
    assert await mesh.request("news", to="gossip", timeout=5) is None


async def test_an_agent_with_nothing_but_work_answers_all_the_same(mesh: Mesh, serve: Serve) -> None:
    agent = Agent("busy", slots=1)
    release = asyncio.Event()

    @agent.capability("toil")
    async def toil() -> str:
        await release.wait()
        return "done"

    @agent.on("ask")
    async def ask(message: Message) -> object:
        return message.payload

    @agent.on("let-go")
    def let_go(_: Message) -> bool:  # in a thread, and the tasks have all of theirs
        return agent.serving is not None and agent.serving.claims.free == 0

    id = await serve(agent)
    tasks = [await mesh.enqueue("toil") for _ in range(3)]

    async def full() -> bool:
        assert agent.serving
        return agent.serving.claims.free == 0

    await eventually(full)
    assert await mesh.request("ask", 42, to=id, timeout=5) == 42
    assert await asyncio.gather(*(mesh.request("ask", n, to=id, timeout=5) for n in range(200))) == list(range(200))
    assert await mesh.request("let-go", to=id, timeout=5) is True
    assert len([task for task in tasks if (await task.record()).state == "running"]) == 1
    release.set()
    assert [await task.result(timeout=5) for task in tasks] == ["done"] * 3


async def test_nobody_understands_that_type(mesh: Mesh, serve: Serve) -> None:
    with pytest.raises(NoCapableAgent, match="'sing'"):
        await mesh.request("sing")
    await serve(gossip([]))
    with pytest.raises(NoCapableAgent, match="'sing'"):
        await mesh.request("sing")


async def test_that_agent_does_not_understand_it(mesh: Mesh, serve: Serve) -> None:
    id = await serve(gossip([]))
    with pytest.raises(NotUnderstood, match=r"'sing'.*ask"):
        await mesh.request("sing", to=id, timeout=5)


async def test_there_is_no_such_agent(mesh: Mesh, serve: Serve) -> None:
    id = await serve(gossip([]))
    with pytest.raises(UnknownAgent, match=f"'nobody'; alive: {id}"):
        await mesh.send("nobody", "news")
    with pytest.raises(UnknownAgent):
        await mesh.request("ask", to="gossip.999")


async def test_its_handler_raised(mesh: Mesh, serve: Serve) -> None:
    await serve(gossip([]))
    with pytest.raises(RemoteError, match="ValueError: ask what"):
        await mesh.request("ask", timeout=5)


async def test_it_did_not_answer_in_time(mesh: Mesh, serve: Serve) -> None:
    agent = gossip([])
    agent.grace = 0.05
    await serve(agent)
    with pytest.raises(RequestTimeout, match="whether it acted is unknown"):
        await mesh.request("ponder", timeout=0.1)


VICTIM = """
import asyncio
from streammesh import Agent
agent = Agent("victim", lease=0.5)

@agent.on("ponder")
async def ponder(message):
    print("pondering", flush=True)
    await asyncio.Event().wait()

agent.run({url!r}, namespace={namespace!r})
"""


@pytest.fixture
async def victim(mesh: Mesh) -> AsyncIterator[Process]:
    """An agent in a process of its own, because only a process can really be killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VICTIM.format(url=mesh.url, namespace=mesh.namespace),
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()
    assert process.stdout
    await process.stdout.read()


async def test_it_died_with_the_request_open(mesh: Mesh, serve: Serve, victim: Process) -> None:
    await serve(gossip([], lease=0.5))

    async def joined() -> bool:
        return any(one.name == "victim" and one.state == "ready" for one in await mesh.agents())

    await eventually(joined)
    asking = asyncio.create_task(mesh.request("ponder", to="victim", timeout=20))
    assert victim.stdout
    assert await victim.stdout.readline() == b"pondering\n"
    victim.send_signal(signal.SIGKILL)
    with pytest.raises(AgentDied, match="victim"):
        await asking
