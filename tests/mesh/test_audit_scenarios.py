"""Brainstorm, critique, vote, implement, with an agent killed in each phase; and what can be said of it afterwards, from one id.

Seven agents in processes of their own, a lease of one second. The bound: done within half a minute, whoever dies.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from streammesh import Mesh, Message
from streammesh.cards import agent_card
from streammesh.tracing import Traced, Traces
from tests.eventually import eventually
from tests.schema import broken

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]

LEASE, AGENTS, BOUND = 1.0, 7, 30.0
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

#: The arguments of an agent's process: url, namespace, name, the phase in which it dies.
MEMBER = """
import asyncio, os, signal, sys
from streammesh import Agent, TaskContext

url, namespace, name, dies = sys.argv[1:]
agent = Agent(name, lease=1.0, grace=1.0)

def phase(which):
    if which == dies:
        os.kill(os.getpid(), signal.SIGKILL)

@agent.on("idea")
async def idea(message):
    phase("idea")
    return f"idea of {name}"

@agent.on("critique")
async def critique(message):
    phase("critique")
    return {one: len(one) for one in message.payload}

@agent.votes("pick")
async def pick(ballot):
    phase("vote")
    return ballot.options[0]

@agent.capability("implement")
async def implement(ctx: TaskContext, idea: str):
    # Whoever begins it first dies with it.
    if await ctx.mesh.store.command("SET", f"{namespace}-begun", name, "NX"):
        os.kill(os.getpid(), signal.SIGKILL)
    await ctx.mesh.broadcast("built", idea)
    return f"{idea}, built by {name}"

@agent.workflow("solve")
async def solve(run, question: str):
    ideas = await run.collect("idea", question, at_least=3, timeout=20)
    options = sorted(answer for _, answer in ideas.responses)[:3]
    critique = await run.collect("critique", options, at_least=3, timeout=20)
    decision = await run.vote(question, options, topic="pick", quorum=3, deadline=20)
    built = await run.call("implement", idea=decision.winner)
    return {"built": built, "winner": decision.winner, "vote": decision.id, "silent": [len(ideas.dead), len(critique.dead)]}

@agent.on("problem")
async def problem(message):
    await message.mesh.start("solve", id=message.payload["id"], question=message.payload["question"])

agent.run(url, namespace=namespace)
"""

#: What CloudEvents 1.0 asks of an event in its structured JSON form, beside what its extensions are here.
CLOUDEVENT: dict[str, Any] = {
    "type": "object",
    "required": ["id", "source", "specversion", "type"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "specversion": {"const": "1.0"},
        "type": {"type": "string", "minLength": 1},
        "datacontenttype": {"const": "application/json"},
        "time": {"type": "string", "pattern": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"},
        "expirytime": {"type": "string", "pattern": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"},
        "traceparent": {"type": "string", "pattern": "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"},
        "correlationid": {"type": "string", "minLength": 1},
        "causationid": {"type": "string", "minLength": 1},
        "meshhops": {"type": "integer"},
        "meshpath": {"type": "string"},
        "meshreply": {"type": "string"},
        "data": {},
    },
    "additionalProperties": False,
}

_WORDS = {"type": "array", "items": {"type": "string"}}
#: What the A2A specification 0.3.0 asks of an AgentCard.
CARD: dict[str, Any] = {
    "type": "object",
    "required": [
        "protocolVersion", "name", "description", "url", "version", "capabilities", "defaultInputModes", "defaultOutputModes", "skills",
    ],
    "properties": {
        "protocolVersion": {"type": "string", "pattern": r"\d+\.\d+\.\d+"},
        "name": {"type": "string", "minLength": 1},
        "description": {"type": "string"},
        "url": {"type": "string", "pattern": r"[a-z][a-z0-9+.-]*:.+"},
        "version": {"type": "string", "minLength": 1},
        "capabilities": {
            "type": "object",
            "required": [],
            "properties": {name: {"type": "boolean"} for name in ("streaming", "pushNotifications", "stateTransitionHistory")},
            "additionalProperties": False,
        },
        "defaultInputModes": _WORDS,
        "defaultOutputModes": _WORDS,
        "skills": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "name", "description", "tags"],
                "properties": {"id": {"type": "string"}, "name": {"type": "string"}, "description": {"type": "string"}, "tags": _WORDS},
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}  # fmt: skip


@pytest.fixture
async def mesh(url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


@pytest.fixture
async def members(mesh: Mesh) -> AsyncIterator[list[Process]]:
    """Seven agents; one dies of the first idea, one of the critique, one of the vote, and one, whoever it is, at work."""
    dies = ["", "", "", "", "idea", "critique", "vote"]
    began = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", MEMBER, mesh.url, mesh.namespace, f"m{n}", phase)
        for n, phase in enumerate(dies)
    ]
    try:

        async def ready() -> bool:
            return sum(one.state == "ready" for one in await mesh.agents()) == AGENTS

        await eventually(ready, timeout=30)
        yield began
    finally:
        for process in began:
            if process.returncode is None:
                process.kill()
            await process.wait()


def pairs(node: Traced) -> Iterator[tuple[Traced, Traced]]:
    """(parent, child) for everything below."""
    for child in node.children:
        yield node, child
        yield from pairs(child)


async def flat(mesh: Mesh, key: str) -> dict[str, str]:
    found = await mesh.store.command("HGETALL", key)
    return dict(zip(found[::2], found[1::2], strict=True))


async def test_four_phases_with_a_death_in_each(mesh: Mesh, members: list[Process]) -> None:
    began = time.monotonic()
    m0 = await mesh.registry.resolve("m0")
    problem = {"id": "solved", "question": "How?"}
    root = await mesh.messages.publish(f"agent {m0.id}", "problem", problem, extra=("traceparent", TRACE))
    run = mesh.run("solved")

    async def started() -> bool:
        return bool(await mesh.store.command("EXISTS", mesh.keys.run("solved")))

    await eventually(started)
    result = await run.result(timeout=BOUND)
    took = time.monotonic() - began
    assert took <= BOUND
    # Who was killed was killed, in each of the four, and what was closed before was not done again.
    await eventually(lambda: sum(process.returncode is not None for process in members) == 4)
    assert re.fullmatch(r"idea of m\d, built by m\d", result["built"])
    history = [record["what"] for record in await run.history()]
    assert (history.count("vote") + history.count("collect"), history.count("call")) == (3, 1)
    assert (result["silent"][0], (await mesh.votes.recount(result["vote"])).agrees) == (1, True)
    # One tree from one id, in which everything hangs where it was caused.
    tree = await Traces(mesh.store, mesh.keys).read(root)
    assert await Traces(mesh.store, mesh.keys).read("solved") == tree, "by the id of anything in it"
    orphans = [
        (child.kind, child.name, child.causation) for parent, child in pairs(tree) if child.causation != parent.id
    ]
    assert orphans == []
    kinds = Counter((one.kind, one.name) for one in tree.walk())
    assert kinds["message", "problem"] == kinds["run", "solve"] == kinds["task", "implement"] == 1
    assert kinds["message", "built"] >= 1
    assert sum(count for (kind, _), count in kinds.items() if kind == "vote") >= 1
    # One trace id, as far as the flow goes.
    tasks = [one for one in tree.walk() if one.kind in ("task", "run")]
    keys = [mesh.keys.run(one.id) if one.kind == "run" else mesh.keys.task(one.id) for one in tasks]
    assert {(await flat(mesh, key)).get("traceparent", "")[:35] for key in keys} == {TRACE[:35]}
    sys.stdout.write(f"four phases, four deaths: {took:.1f} s, {sum(kinds.values())} things in one tree, 0 orphans\n")


async def test_what_others_read_is_what_they_expect(mesh: Mesh, members: list[Process]) -> None:
    """The card of every agent, and every message, are what the specifications say they are."""
    for one in await mesh.peers(fresh=True):
        skills = [(capability, await flat(mesh, mesh.keys.cap(capability))) for capability in one.capabilities]
        assert broken(agent_card(mesh.namespace, one.id, one.name, skills), CARD) == []
    plain = Message("m1", "news", None)
    full = Message(
        "m2", "news", {"n": [1]}, source="ann.1", deadline=1_700_000_000_123, correlation="c", at="2026-01-01T00:00:00.000Z",
        causation="c", hops=2, path=("ann.1",), traceparent=TRACE, reply_to="client-1",
    )  # fmt: skip
    for message in (plain, full):
        event = message.cloudevent()
        assert broken(event, CLOUDEVENT) == []
        assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in event), "the names that CloudEvents allows"
