"""To whom a request or a directed task goes: strategies, typed refusals, and what is tried after the first one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from streammesh import Agent, Mesh, Message, Refuse
from streammesh.errors import ConfigError, NoCapableAgent, Refused, RemoteError
from tests.eventually import eventually
from tests.guide.conftest import Serve


def oracle(name: str, asked: list[str], *, refuses: bool = False, slots: int = 8) -> Agent:
    agent = Agent(name, lease=1.0, slots=slots)

    @agent.on("ask")
    async def ask(message: Message) -> str:
        asked.append(name)
        if refuses:
            raise Refuse("not on Sundays", retry_after=60)
        if message.payload == "boom":
            raise ValueError("boom")
        return name

    @agent.capability("tell")
    async def tell() -> str:
        return name

    @agent.capability("wait")
    async def wait() -> None:
        await asyncio.sleep(1.0)

    return agent


async def everybody_knows(mesh: Mesh, count: int) -> None:
    async def ready() -> bool:
        return len([one for one in await mesh.peers(fresh=True) if one.willing]) == count

    await eventually(ready)


async def test_a_request_is_refused_by_one_and_answered_by_another(mesh: Mesh, serve: Serve) -> None:
    asked: list[str] = []
    for name in ("a", "b"):
        await serve(oracle(name, asked, refuses=name == "a"))
    await everybody_knows(mesh, 2)
    assert {await mesh.request("ask") for _ in range(12)} == {"b"}
    assert "a" in asked, "it was asked, and its refusal cost nothing but time"
    with pytest.raises(Refused, match="not on Sundays") as refused:
        await mesh.request("ask", to="a")
    assert refused.value.retry_after == 60
    said = await asyncio.gather(*(mesh.request("ask", retries=0) for _ in range(40)), return_exceptions=True)
    assert any(isinstance(one, Refused) for one in said)


async def test_an_error_of_the_handler_is_not_tried_elsewhere(mesh: Mesh, serve: Serve) -> None:
    asked: list[str] = []
    for name in ("a", "b"):
        await serve(oracle(name, asked))
    await everybody_knows(mesh, 2)
    with pytest.raises(RemoteError, match="boom"):
        await mesh.request("ask", "boom", retries=5)
    assert len(asked) == 1


async def test_strategies(mesh: Mesh, serve: Serve) -> None:
    asked: list[str] = []
    for name in ("a", "b", "c"):
        await serve(oracle(name, asked))
    await everybody_knows(mesh, 3)
    assert Counter([await mesh.request("ask", strategy="round-robin") for _ in range(9)]) == {"a": 3, "b": 3, "c": 3}
    for key in ("x", "y", "z"):
        assert len({await mesh.request("ask", affinity=key) for _ in range(5)}) == 1
    assert len({await mesh.request("ask", affinity=str(n)) for n in range(30)}) == 3
    assert await mesh.request("ask", strategy="least-loaded") in "abc"
    for bad in ("pull", "best", "affinity"):
        with pytest.raises(ConfigError, match="expected one of"):
            await mesh.request("ask", strategy=bad)


async def test_a_directed_task_goes_to_one_agent(mesh: Mesh, serve: Serve) -> None:
    for name in ("a", "b"):
        await serve(oracle(name, []))
    await everybody_knows(mesh, 2)
    tasks = [await mesh.enqueue("tell", affinity="customer-7") for _ in range(6)]
    assert len({await task.result(timeout=10) for task in tasks}) == 1
    assert (await tasks[0].record()).fields["to"] == (await tasks[5].record()).fields["to"]
    assert {await mesh.call("tell", strategy="round-robin", timeout=10) for _ in range(4)} == {"a", "b"}


async def test_nobody_to_ask_is_said_at_once_with_the_reason(mesh: Mesh, serve: Serve) -> None:
    for call in (mesh.request("ask"), mesh.enqueue("tell", strategy="two-choices"), mesh.find("tell")):
        began = time.perf_counter()
        with pytest.raises(NoCapableAgent) as error:
            await call
        assert error.value.reason == "none_registered"
        assert time.perf_counter() - began < 1.0
    agent = oracle("a", [], slots=1)
    await serve(agent)
    await everybody_knows(mesh, 1)
    assert [one.name for one in await mesh.find("tell")] == ["a"]
    await mesh.pause("tell")
    with pytest.raises(NoCapableAgent, match="paused") as error:
        await mesh.find("tell")
    assert error.value.reason == "all_paused"
    await mesh.resume("tell")
    task = await mesh.enqueue("wait")

    async def full() -> bool:
        return (await mesh.peers("wait", fresh=True))[0].full

    await eventually(full)
    with pytest.raises(NoCapableAgent) as error:
        await mesh.find("tell")
    assert error.value.reason == "all_full"
    await task.result(timeout=10)
