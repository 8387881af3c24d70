"""Replies that are lost, requests that are torn, connections that are killed, servers that stop: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import tenacity
from redis.asyncio import Redis

from streammesh import Agent, Mesh, Reject, Retry, State, TaskContext
from streammesh.errors import ResultTimeout, StoreUnavailable, TaskDead, TaskFailed
from streammesh.store import load_script
from streammesh.testing import leaked_keys
from tests.eventually import eventually
from tests.line import Line
from tests.servers import Server

LEASE = 0.6


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("valkey", tmp_path_factory.mktemp("own"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def line(own: Server) -> AsyncIterator[Line]:
    async with Line(own.port) as line:
        yield line


@pytest.fixture(params=[1, 3], ids=["one-shard", "three-shards"])
async def mesh(request: pytest.FixtureRequest, own: Server, namespace: str) -> AsyncIterator[Mesh]:
    """A client with a line of its own that nobody touches."""
    async with Mesh.connect(own.url, namespace=namespace, shards=request.param) as mesh:
        yield mesh


@asynccontextmanager
async def client(line: Line, mesh: Mesh, patience: float | None = 10.0) -> AsyncIterator[Mesh]:
    """A client at the end of the line."""
    async with Mesh.connect(line.url, namespace=mesh.namespace, patience=patience) as other:
        yield other


@asynccontextmanager
async def working(mesh: Mesh, *agents: Agent) -> AsyncIterator[None]:
    serving = [asyncio.create_task(agent.serve(mesh)) for agent in agents]
    await eventually(lambda: all(agent.serving and agent.serving.tending.sweeps for agent in agents))
    try:
        yield
    finally:
        for agent in agents:
            agent.stop()
        await asyncio.gather(*serving)


def counter(ran: Counter[int], name: str = "counter", slots: int = 32) -> Agent:
    agent = Agent(name, slots=slots, lease=LEASE, grace=5)

    @agent.capability("count")
    async def count(n: int) -> int:
        ran[n] += 1
        return n

    return agent


def digest(script: str) -> str:
    return load_script(script).digest


async def entries(mesh: Mesh) -> int:
    return sum(one.waiting + one.running for one in await mesh.status.capabilities())


# -- clients


@pytest.mark.parametrize("way", ["reply", "request"])
@pytest.mark.parametrize("id", [None, "my-id"], ids=["own id", "no id"])
async def test_a_cut_enqueue_makes_exactly_one_task(mesh: Mesh, line: Line, way: str, id: str | None) -> None:
    async with client(line, mesh) as far:
        await (await far.enqueue("count", n=0)).cancel()
        (line.lose_reply_to if way == "reply" else line.tear)(digest("task_enqueue"))
        task = await far.enqueue("count", {"n": 1}, id=id)
        assert line.cuts == 1
        assert await entries(mesh) == 1
        assert (await mesh.task(task.id).record()).state == State.QUEUED
        if id is None:
            assert task.created


@pytest.mark.parametrize("way", ["reply", "request"])
async def test_a_cut_batch_is_there_once_and_whole(mesh: Mesh, line: Line, way: str) -> None:
    async with client(line, mesh) as far:
        await (await far.enqueue("count", n=0)).cancel()
        (line.lose_reply_to if way == "reply" else line.tear)(digest("task_enqueue"))
        tasks = await far.enqueue_many("count", [{"n": n} for n in range(2500)])
        assert (line.cuts, len(tasks), await entries(mesh)) == (1, 2500, 2500)


async def test_without_patience_a_cut_enqueue_is_unknown_and_safe_to_repeat(mesh: Mesh, line: Line) -> None:
    async with client(line, mesh, patience=0) as far:
        await (await far.enqueue("count", n=0)).cancel()
        line.lose_reply_to(digest("task_enqueue"))
        with pytest.raises(StoreUnavailable):
            await far.enqueue("count", {"n": 1}, id="my-id")
        assert not (await far.enqueue("count", {"n": 1}, id="my-id")).created
        assert await entries(mesh) == 1


async def test_a_result_arrives_though_its_push_was_lost(mesh: Mesh, line: Line) -> None:
    async with client(line, mesh) as far, working(mesh, counter(Counter())):
        assert await far.call("count", {"n": 1}, timeout=5) == 1
        line.lose_reply_to(b"XREAD", times=2)
        assert await asyncio.gather(*(far.call("count", {"n": n}, timeout=10) for n in range(50))) == list(range(50))
        assert line.cuts


async def test_a_black_hole_ends_in_a_typed_error(mesh: Mesh, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client(line, mesh, patience=0) as far:
        line.hold()
        with pytest.raises(StoreUnavailable, match="no answer"):
            await far.store.command("PING", timeout=0.2, patient=False)
        line.release()
        assert (await far.enqueue("count", n=1)).created


async def test_a_call_that_the_server_never_confirmed_says_so(mesh: Mesh, line: Line) -> None:
    async with client(line, mesh) as far:
        line.hold()
        with pytest.raises(ResultTimeout, match=r"no answer from the server.*with an id= it is safe to call again"):
            await far.call("count", {"n": 1}, timeout=0.2)
        line.release()


# -- agents

SCRIPTS = [
    "task_claim",
    "task_settle",
    "task_renew",
    "task_sweep",
    "agent_beat",
    "agent_expire",
    "due_fire",
    "XREADGROUP",
]


@pytest.mark.parametrize("word", SCRIPTS)
async def test_an_agent_whose_replies_are_lost_does_everything_once(mesh: Mesh, line: Line, word: str) -> None:
    """What a lost claim took is found as strays after half a lease; a repeated settlement changes nothing."""
    ran: Counter[int] = Counter()
    async with client(line, mesh, patience=None) as far, working(far, counter(ran)):
        assert await mesh.call("count", {"n": -1}, timeout=5) == -1
        line.lose_reply_to(word if word.isupper() else digest(word), times=3)
        tasks = await mesh.enqueue_many("count", [{"n": n} for n in range(40)])
        for n in range(40, 44):
            await mesh.enqueue("count", {"n": n}, delay=0.05)
        raw = mesh.keys.tasks("count")
        async with Redis.from_url(mesh.url) as redis:
            for n in range(44, 48):
                await redis.xadd(raw, {"payload": b'{"n": %d}' % n})
        await eventually(lambda: len(ran) == 49)
        await eventually(lambda: _done(mesh))
        await eventually(lambda: line.cuts == 3)
        assert [await mesh.task(task.id).result(5) for task in tasks if not isinstance(task, Exception)] == list(
            range(40)
        )
    assert set(ran.values()) == {1}
    assert await leaked_keys(mesh) == []
    assert await mesh.dead.counts() == {}


async def _done(mesh: Mesh) -> bool:
    return await entries(mesh) == 0 and await mesh.timers.waiting() == 0


async def test_a_settlement_whose_reply_is_lost_counts_once_whatever_it_says(mesh: Mesh, line: Line) -> None:
    agent = Agent("settler", lease=LEASE)
    again = tenacity.Retrying(wait=tenacity.wait_fixed(0.01), stop=tenacity.stop_after_attempt(3))

    @agent.capability("end", retry=again)
    async def end(how: str, ctx: TaskContext) -> str:
        if how == "fail" and ctx.failures < 2:
            raise OSError("not yet")
        if how == "dead":
            raise OSError("never")
        if how == "again" and ctx.attempt < 3:
            raise Retry(0.01)
        if how == "reject":
            raise Reject("no")
        return f"{how} after {ctx.failures} failures in attempt {ctx.attempt}"

    async with client(line, mesh, patience=None) as far, working(far, agent):
        await mesh.call("end", {"how": "warm up"}, timeout=5)
        said = {}
        for how in ("complete", "fail", "dead", "again", "reject"):
            line.lose_reply_to(digest("task_settle"), times=2)
            try:
                said[how] = await mesh.call("end", {"how": how}, timeout=10)
            except (TaskDead, TaskFailed) as error:
                said[how] = type(error).__name__
            await eventually(lambda: _done(mesh))
    assert said == {
        "complete": "complete after 0 failures in attempt 1",
        "fail": "fail after 2 failures in attempt 3",
        "dead": "TaskDead",
        "again": "again after 0 failures in attempt 3",
        "reject": "TaskFailed",
    }
    assert await mesh.dead.counts() == {"end": 1}
    assert await leaked_keys(mesh) == []


async def test_an_agent_in_a_black_hole_loses_its_work_to_another_and_settles_nothing(mesh: Mesh, line: Line) -> None:
    begun: list[str] = []
    go_on = asyncio.Event()

    def slow(name: str) -> Agent:
        agent = Agent(name, lease=LEASE, grace=5, slots=2)

        @agent.capability("count")
        async def count(n: int, ctx: TaskContext) -> str:
            begun.append(f"{name} {ctx.attempt}")
            if name == "far":
                await go_on.wait()
            return name

        return agent

    away = slow("far")
    async with client(line, mesh, patience=None) as far, working(far, away):
        task = await mesh.enqueue("count", n=1)
        await eventually(lambda: begun)
        line.hold()
        async with working(mesh, slow("near")):
            assert await task.result(10) == "near"
            line.release()
            go_on.set()
            await eventually(lambda: away.serving and not away.serving.claims.held, timeout=15)
        assert begun == ["far 1", "near 2"]
        assert (await task.record()).result == "near"
    assert (await task.record()).fields["deaths"] == "1"


async def test_storms_of_killed_connections_lose_nothing(mesh: Mesh, own: Server) -> None:
    ran: Counter[int] = Counter()

    async def storm() -> None:
        async with Redis.from_url(own.url) as redis:
            while True:
                await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await asyncio.sleep(0.03)

    async with working(mesh, counter(ran, "one"), counter(ran, "two")):
        storming = asyncio.create_task(storm())
        results = [result async for result in mesh.map("count", [{"n": n} for n in range(300)], limit=40)]
        storming.cancel()
        await eventually(lambda: _done(mesh))
    assert results == list(range(300))
    assert set(ran.values()) == {1}
    assert await leaked_keys(mesh) == []


async def test_scripts_that_are_flushed_come_back(mesh: Mesh, own: Server) -> None:
    ran: Counter[int] = Counter()
    async with Redis.from_url(own.url) as redis, working(mesh, counter(ran)):
        results = []
        async for result in mesh.map("count", [{"n": n} for n in range(300)], limit=20):
            results.append(result)
            if result % 10 == 0:
                await redis.execute_command("SCRIPT", "FLUSH")
    assert results == list(range(300))
    assert set(ran.values()) == {1}


# -- the server


async def test_a_server_that_is_started_again_goes_on_where_it_was(mesh: Mesh, own: Server) -> None:
    ran: Counter[int] = Counter()
    agents = [counter(ran, "one"), counter(ran, "two")]
    serving = [asyncio.create_task(agent.serve(mesh)) for agent in agents]
    results = []
    delayed = await mesh.enqueue("count", {"n": 1000}, delay=0.5)
    async for result in mesh.map("count", [{"n": n} for n in range(300)], limit=20):
        results.append(result)
        if result == 150:
            await asyncio.to_thread(own.stop)
            await asyncio.to_thread(own.start)
    assert await delayed.result(10) == 1000
    for agent in agents:
        agent.stop()
    await asyncio.gather(*serving)
    assert results == list(range(300))
    assert set(ran.values()) == {1}
    assert await leaked_keys(mesh) == []


async def test_a_server_that_stands_still_for_three_leases_moves_no_work(mesh: Mesh, own: Server) -> None:
    """Nobody could beat, so nobody counts as dead: what ran goes on where it is."""
    ran: Counter[int] = Counter()
    go_on = asyncio.Event()

    def holding(name: str) -> Agent:
        agent = Agent(name, lease=LEASE, slots=16, grace=5)

        @agent.capability("hold")
        async def hold(n: int) -> int:
            ran[n] += 1
            await go_on.wait()
            return n

        return agent

    async with working(mesh, holding("one"), holding("two")):
        tasks = await mesh.enqueue_many("hold", [{"n": n} for n in range(20)])
        await eventually(lambda: len(ran) == 20)
        os.kill(own.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(3 * LEASE)  # the stall itself; nothing is waited for
        finally:
            os.kill(own.pid, signal.SIGCONT)
        go_on.set()
        assert [await task.result(10) for task in tasks if not isinstance(task, Exception)] == list(range(20))
        assert len(await mesh.agents()) == 2
    assert set(ran.values()) == {1}
    records = [await task.record() for task in tasks if not isinstance(task, Exception)]
    # Nobody counted as dead. (An attempt may be used up where a claim's answer came after half a lease, as on a machine under load.)
    assert {"deaths" in record.fields for record in records} == {False}


async def test_after_a_standstill_new_work_is_done_at_once(mesh: Mesh, own: Server) -> None:
    async with working(mesh, counter(Counter())):
        os.kill(own.pid, signal.SIGSTOP)
        try:
            calling = asyncio.create_task(mesh.call("count", {"n": 1}, timeout=10))
            await asyncio.wait({calling}, timeout=2 * LEASE)
        finally:
            os.kill(own.pid, signal.SIGCONT)
        async with asyncio.timeout(LEASE):
            assert await calling == 1
