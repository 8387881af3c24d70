"""Votes while agents die: nine voters in nine processes, some of which are killed, and openers and executors that are, too."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from streammesh import Decision, Mesh
from tests.eventually import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]
ROOT = Path(__file__).parents[2]
LEASE = 1.0

VOTER = """
import asyncio, sys
from streammesh import Agent, Run
url, namespace, name, choice, held = sys.argv[1:]
agent = Agent(name, lease=1.0)
gate = asyncio.Event()

@agent.votes()
async def vote(ballot):
    if held == "held":
        await gate.wait()
    return choice

@agent.on("go")
async def go(message):
    gate.set()

@agent.workflow("choose")
async def choose(run: Run) -> list:
    decision = await run.vote("?", ["a", "b"], voters="vote", deadline=60)
    return [decision.outcome, decision.winner, decision.id]

@agent.capability("vote")
async def nothing() -> None: ...

agent.run(url, namespace=namespace)
"""

BYSTANDER = """
import sys
from streammesh import Agent
url, namespace, name = sys.argv[1:]
agent = Agent(name, lease=1.0)

@agent.capability("idle")
async def idle() -> None: ...

agent.run(url, namespace=namespace)
"""

OPENER = """
import asyncio, sys
from streammesh import Mesh
url, namespace, deadline = sys.argv[1:]
async def main():
    async with Mesh.connect(url, namespace=namespace) as mesh:
        print("opening", flush=True)
        await mesh.vote("?", ["a", "b"], id="v", deadline=float(deadline))
asyncio.run(main())
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
async def mesh(url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


@pytest.fixture
def start(url: str, namespace: str) -> Iterator[Start]:
    """A Python program in a process of its own, ended with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(program: str, *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, url, namespace, *words], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()


async def voters(mesh: Mesh, start: Start, choices: str, held: str) -> dict[str, subprocess.Popen[bytes]]:
    """A process for each letter of ``choices``; those at which ``held`` has a letter wait for a `go`. id -> process"""
    processes = [
        start(VOTER, f"v{n}", choice, "held" if hold.strip() else "")
        for n, (choice, hold) in enumerate(zip(choices, held, strict=True))
    ]

    async def ready() -> dict[str, subprocess.Popen[bytes]]:
        agents = {one.name: one.id for one in await mesh.agents() if one.state == "ready" and one.name[0] == "v"}
        return (
            {agents[f"v{n}"]: process for n, process in enumerate(processes)} if len(agents) == len(processes) else {}
        )

    return await eventually(ready, timeout=60, what="every voter is ready")


async def ballots(mesh: Mesh, id: str, count: int) -> None:
    async def there() -> bool:
        return await mesh.store.command("HLEN", mesh.keys.vote(id) + ":ballots") == count

    await eventually(there, what=f"{count} ballots are cast")


async def one_outcome(mesh: Mesh, id: str) -> Decision:
    """Whoever closes it, and how often: there is one."""
    await asyncio.gather(*(mesh.votes.close(id, by="late") for _ in range(5)))
    decision = await mesh.votes.decision(id)
    record = await mesh.votes.record(id)
    assert [entry["type"] for entry in record.audit].count("close") == 1
    assert (await mesh.votes.recount(id)).agrees
    return decision


@pytest.mark.parametrize(("killed", "outcome"), [(4, "decided"), (5, "no_quorum")])
async def test_nine_voters_quorum_five_and_some_are_killed(mesh: Mesh, start: Start, killed: int, outcome: str) -> None:
    # Others are there too: where most of a mesh falls silent at once, everybody holds back for a lease and asks whether it is he.
    for n in range(3):
        start(BYSTANDER, f"b{n}")
    processes = await voters(mesh, start, "aabab" + "aaaa", " " * (9 - killed) + "h" * killed)

    async def everybody() -> bool:
        return sum(one.state == "ready" for one in await mesh.agents()) == 12

    await eventually(everybody, timeout=60)
    vote = asyncio.create_task(mesh.vote("?", ["a", "b"], id="v", quorum=5, deadline=30))
    await ballots(mesh, "v", 9 - killed)
    victims = list(processes)[9 - killed :]
    for id in victims:
        processes[id].kill()
    began = time.monotonic()
    decision = await vote
    took = time.monotonic() - began
    assert decision.outcome == outcome
    assert took <= LEASE + 1, "long before the deadline"
    if outcome == "decided":
        # Three of five that voted: not more than half of nine, so the others had to be given up first.
        assert (decision.winner, decision.support, decision.dead) == ("a", 3, tuple(victims))
    else:
        assert (decision.ballots, decision.reason, decision.voters) == (4, "unreachable", 9)
    assert await one_outcome(mesh, "v") == decision


async def test_the_first_five_of_nine_agree(mesh: Mesh, start: Start) -> None:
    await voters(mesh, start, "aaaaabbbb", "     hhhh")
    began = time.monotonic()
    decision = await mesh.vote("?", ["a", "b"], id="v", quorum=5, deadline=30)
    assert time.monotonic() - began < 5
    assert (decision.winner, decision.reason, len(decision.silent)) == ("a", "early", 4)
    await mesh.broadcast("go")
    # Who comes late is answered, and on record.
    await eventually(lambda: audit(mesh, "refused", 4), what="the late ballots are refused")
    assert await one_outcome(mesh, "v") == decision


async def audit(mesh: Mesh, kind: str, count: int) -> bool:
    return [entry["type"] for entry in (await mesh.votes.record("v")).audit].count(kind) == count


@pytest.mark.parametrize("then", ["they vote", "the deadline comes"])
async def test_the_opener_is_killed(mesh: Mesh, start: Start, then: str) -> None:
    ids = await voters(mesh, start, "aab", "hhh")
    opener = start(OPENER, "2" if then == "the deadline comes" else "60")
    await eventually(lambda: mesh.store.command("EXISTS", mesh.keys.vote("v")), what="it is open")
    opener.kill()
    opener.wait()
    if then == "they vote":
        await mesh.broadcast("go")

    async def closed() -> bool:
        return await mesh.store.command("HGET", mesh.keys.vote("v"), "state") != "open"

    await eventually(closed, timeout=5)
    decision = await one_outcome(mesh, "v")
    assert decision.closed_by in ids, "an agent closed it"
    assert (decision.outcome, decision.winner) == (("decided", "a") if then == "they vote" else ("no_quorum", None))


async def test_the_executor_of_a_run_that_votes_is_killed(mesh: Mesh, start: Start) -> None:
    processes = await voters(mesh, start, "aaa", "hhh")
    handle = await mesh.start("choose", id="r")

    async def opened() -> bool:
        return bool(await mesh.votes.listed())

    await eventually(opened)
    executor = (await handle.head()).fields["agent"]
    processes[executor].kill()
    await mesh.broadcast("go")
    outcome, winner, id = await handle.result(20)
    assert (outcome, winner) == ("decided", "a")
    assert [record["what"] for record in await handle.history()].count("vote") == 1
    assert (await one_outcome(mesh, id)).voters == 3
    with contextlib.suppress(StopIteration):
        assert next(iter(await mesh.votes.listed()))[0] == id
    assert len(await mesh.votes.listed()) == 1
