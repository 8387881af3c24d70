"""Pytest fixtures for your own handlers: a mesh of its own for every test, and an agent that works until nothing is left.

The plugin comes with the package; async tests and fixtures are run by anyio's plugin, which streammesh brings along
(`@pytest.mark.anyio`, or ``anyio_mode = "auto"`` in the settings of pytest). Nothing else is needed.

    import pytest
    from streammesh import Agent, Mesh, Run, errors
    from streammesh.movable import MeshClock
    from streammesh.testing import working

    agent = Agent("mailer")
    outbox = []

    @agent.capability("send-mail", retries=2)
    async def send_mail(to: str) -> str:
        if to == "nobody":
            raise LookupError(to)
        outbox.append(to)
        return f"sent to {to}"

    @pytest.mark.anyio
    async def test_mail_is_sent_tomorrow(mesh: Mesh, run_until_idle) -> None:
        task = await mesh.enqueue("send-mail", {"to": "ada"}, delay=86_400)
        report = await run_until_idle(agent)  # does not wait a day for it
        assert (report.succeeded, report.fired) == (1, 1)
        assert await task.result(timeout=1) == "sent to ada"
        assert outbox == ["ada"]

    @pytest.mark.anyio
    async def test_nobody_gets_three_attempts(mesh: Mesh, run_until_idle, no_leaked_keys) -> None:
        task = await mesh.enqueue("send-mail", {"to": "nobody"})
        report = await run_until_idle(agent)  # nor for the waits between the attempts
        assert (report.attempts, report.dead) == (3, 1)
        with pytest.raises(errors.TaskDead, match="LookupError"):
            await task.result(timeout=1)

Time can be moved, so that what waits for a month is tested in milliseconds: `mesh_clock.advance` goes from one thing that is due to
the next, and lets the agents finish what each sets in motion; `mesh_clock.jump` moves the clock at once, as if nobody had been there.

    @agent.workflow("remind")
    async def remind(run: Run, to: str) -> str:
        await run.sleep(30 * 86_400)
        return await run.call("send-mail", {"to": to})

    @pytest.mark.anyio
    async def test_a_reminder_is_sent_after_a_month(mesh: Mesh, mesh_clock: MeshClock) -> None:
        async with working(mesh, agent):
            reminder = await mesh.start("remind", to="bob")
            await mesh_clock.advance(days=31)
            assert await reminder.result(timeout=1) == "sent to bob"

Fixtures: ``mesh_url`` (``--mesh-url``; without it an in-memory server for each test), ``mesh`` (an open client in a
namespace that no other test has; what it leaves in a real server is deleted), ``agent`` (an Agent without handlers),
``run_until_idle``, ``mesh_clock`` (a `streammesh.movable.MeshClock`, which says what moves and what
does not; ``MeshClock.take(mesh)`` is the same for a mesh of your own), ``no_leaked_keys`` (fails the test when it leaves unfinished tasks or keys that would stay for ever; for
every test at once: an autouse fixture of yours that requests it).

A changed workflow is tested against what runs have recorded, before it meets them: ``assert_replays(workflow, "press.jsonl")``,
with a journal that `streammesh run history ID --json` wrote, or with the records of ``await handle.history()``.

Nothing here kills an agent: in one process nothing can be killed honestly. Start a process of your own for that.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    # Only for the type checker: a test session that uses no fixture of these should not pay for the client.
    from streammesh import Agent, Mesh
    from streammesh.movable import MeshClock

__all__ = ["Report", "assert_replays", "leaked_keys", "run_until_idle", "working"]

#: Seconds ahead of now within which everything that is due is fired.
EVER = 10 * 365 * 86_400.0

#: The keys of a mesh that may stay without a TTL: by the first word after the prefix.
STANDING = frozenset(
    ["meta", "clock", "caps", "cap", "agents", "members", "events", "refused", "control", "broadcast", "sweep", "inboxes", "tasks", "due", "dead", "runs", "workflows", "auctions", "votes", "topic", "topics"]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the tasks of a mesh: how many are in each final state, and what it took to get there.

    ``attempts`` were begun and ``fired`` delayed ones (retries too) were queued during this run; the other numbers count every
    record of the mesh.
    """

    attempts: int
    fired: int
    succeeded: int
    failed: int
    dead: int
    cancelled: int
    expired: int


async def run_until_idle(mesh: Mesh, *agents: Agent, timeout: float = 30.0) -> Report:
    """Run ``agents`` in this process until nothing that they offer waits, runs or is delayed, and no run of theirs moves.

    Delayed tasks, retries and timers of runs are fired ahead of time rather than waited for; schedules are not. Broadcasts are not waited for. The agents
    leave in order afterwards. Raises TimeoutError, which says what was left, after ``timeout`` seconds; and whatever
    an agent could not start for.
    """
    serving = [asyncio.create_task(agent.serve(mesh)) for agent in agents]
    attempts = fired = 0
    # Looked at, rather than a cancellation: before Python 3.12 the in-memory server may swallow one.
    end = asyncio.get_running_loop().time() + timeout
    ready = idle_before = False
    try:
        while True:
            for one in serving:
                if one.done():
                    one.result()
                    raise RuntimeError("an agent stopped before its work was done")
            if not ready:
                ready = {agent.serving.id if agent.serving else "" for agent in agents} <= await _ready(mesh)
            else:
                soon = await _fire_everything(mesh)
                fired += soon
                idle = not soon and not await _left(mesh, agents)
                # Twice: what a handler has just enqueued may not have been there at the first look.
                if idle and idle_before:
                    break
                idle_before = idle
            if asyncio.get_running_loop().time() > end:
                left = ", ".join(await _left(mesh, agents)) or "something comes again and again"
                raise TimeoutError(f"not idle after {timeout:g} s: {left}; does a handler wait, or ask for ever more?")
            await asyncio.sleep(0.005)
    finally:
        for agent in agents:
            if agent.serving:
                attempts += agent.serving.claims.claimed
                fired += agent.serving.tending.fired
            agent.stop()
        await asyncio.gather(*serving, return_exceptions=True)
    states = await _states(mesh)
    return Report(
        attempts, fired, states["succeeded"], states["failed"], states["dead"], states["cancelled"], states["expired"]
    )  # fmt: skip


@asynccontextmanager
async def working(mesh: Mesh, *agents: Agent, timeout: float = 30.0) -> AsyncIterator[None]:
    """``async with working(mesh, agent):`` the agents are at work in this process, ready from the beginning, drained at the end.

    Raises whatever an agent could not start for, and TimeoutError when one is not ready after ``timeout`` seconds.
    """
    serving = [asyncio.create_task(agent.serve(mesh)) for agent in agents]
    try:
        async with asyncio.timeout(timeout):
            while not {agent.serving.id if agent.serving else "" for agent in agents} <= await _ready(mesh):
                for one in serving:
                    if one.done():
                        one.result()
                await asyncio.sleep(0.005)
        yield
    finally:
        for agent in agents:
            agent.stop()
        await asyncio.gather(*serving, return_exceptions=True)


def assert_replays(
    workflow: Agent | Callable[..., Any], journal: str | Path | Sequence[Mapping[str, Any]], *, id: str | None = None
) -> None:
    """Fail unless the code of a workflow fits a recorded journal: all of it, every prefix, and the recorded end.

    ``workflow`` is the function, or an Agent that has it; ``journal`` a list of records, or the path of a file with one a
    line; ``id`` the run's, where its chance (random, uuid) or children matter.
    """
    from streammesh.agent import Agent
    from streammesh.errors import NonDeterminism
    from streammesh.replays import read, replay_every_prefix
    from streammesh.workflow import Workflow

    records = read(journal) if isinstance(journal, str | Path) else list(journal)
    name, version = str(records[0]["workflow"]), int(records[0]["version"])
    if isinstance(workflow, Agent):
        stream = name if version == 1 else f"{name}@{version}"
        if stream not in workflow.workflows:
            pytest.fail(
                f"agent {workflow.name} has no workflow {stream}; it has {', '.join(workflow.workflows) or 'none'}"
            )
        code = workflow.workflows[stream]
    else:
        code = Workflow.make(name, version, workflow)
    where = f"{journal}: " if isinstance(journal, str | Path) else ""
    try:
        remark = replay_every_prefix(code, records, id=id).remark
    except NonDeterminism as error:
        remark = str(error)
    if remark:
        pytest.fail(f"{where}{remark}", pytrace=False)


async def _ready(mesh: Mesh) -> set[str]:
    return {one.id for one in await mesh.agents() if one.state == "ready"}


async def _fire_everything(mesh: Mesh) -> int:
    return sum([(await mesh.timers.fire(shard, ahead=EVER)).count for shard in range(mesh.keys.shards)])


async def _left(mesh: Mesh, agents: tuple[Agent, ...]) -> list[str]:
    """What these agents still have to do, in words. A stream's length is the number of its unfinished entries."""
    keys = mesh.keys
    about = await mesh.registry.capabilities()
    streams = {
        keys.tasks(name, lane, shard): name + ("" if lane == "normal" else f" ({lane})")
        for agent in agents
        for name in agent.handlers
        if not about.get(name, {}).get("paused")
        for lane in ("high", "normal", "low")
        for shard in range(keys.shards)
    }
    for agent in agents:
        if agent.serving:
            for shard in range(keys.shards):
                streams[keys.inbox(agent.serving.id, shard)] = f"the inbox of {agent.serving.id}"
                streams[keys.mail(agent.serving.id, shard)] = f"messages to {agent.serving.id}"
        for name in agent.workflows:
            streams.update((keys.runs(name, shard), f"runs of {name}") for shard in range(keys.shards))
    lengths = await mesh.store.commands([("XLEN", stream) for stream in streams])
    left = [f"{length} of {what}" for what, length in zip(streams.values(), lengths, strict=True) if length]
    waiting = await mesh.timers.waiting() - sum(one.state == "active" for one in await mesh.schedules.all())
    return [*left, f"{waiting} delayed"] if waiting else left


async def _keys(mesh: Mesh) -> list[str]:
    found: set[str] = set()
    for shard in range(mesh.keys.shards):
        cursor = "0"
        while True:
            cursor, some = await mesh.store.command(
                "SCAN", cursor, "MATCH", mesh.keys.prefix(shard) + "*", "COUNT", 1000
            )
            found.update(some)
            if str(cursor) == "0":
                break
    return sorted(found)


async def _states(mesh: Mesh) -> Counter[str]:
    records = [key for key in await _keys(mesh) if key.partition("}:")[2].startswith("task:")]
    return Counter(await mesh.store.commands([("HGET", key, "state") for key in records]))


async def leaked_keys(mesh: Mesh) -> list[str]:
    """What a mesh holds that nobody will ever take away, in words: unfinished tasks, and keys that lack a TTL."""
    leaks = []
    keys = await _keys(mesh)
    ttls = await mesh.store.commands([("PTTL", key) for key in keys])
    for key, ttl in zip(keys, ttls, strict=True):
        if ttl != -1:
            continue
        word, _, rest = key.partition("}:")[2].partition(":")
        if word == "task":
            state = await mesh.store.command("HGET", key, "state")
            leaks.append(f"task {rest} is {state}, without a TTL")
        elif word == "run" and not rest.endswith((":journal", ":large")):
            state = await mesh.store.command("HGET", key, "state")
            leaks.append(f"run {rest} is {state}, without a TTL")
        elif word not in STANDING:
            leaks.append(f"{key} has no TTL")
        elif word in ("tasks", "runs", "due"):
            count = await mesh.store.command("ZCARD" if word == "due" else "XLEN", key)
            if count:
                leaks.append(f"{key} holds {count} that nobody has finished")
    return leaks


# -- the plugin


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("streammesh").addoption(
        "--mesh-url",
        metavar="URL",
        help="the server for the fixture `mesh`, such as redis://localhost:6379 (default: an in-memory one for each test)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where anyio would run a test on every backend that is installed, streammesh runs on asyncio only."""
    others = [item for item in items if "mesh" in getattr(item, "fixturenames", ()) and _backend(item) != "asyncio"]
    if others:
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)


def _backend(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    backend = callspec.params.get("anyio_backend", "asyncio") if callspec else "asyncio"
    return str(backend[0] if isinstance(backend, tuple) else backend)


@pytest.fixture
def mesh_url(request: pytest.FixtureRequest) -> str:
    """The server's URL: ``--mesh-url``, else an in-memory server that no other test has."""
    given: str | None = request.config.getoption("--mesh-url")
    return given or f"memory://{secrets.token_hex(5)}"


@pytest.fixture
async def mesh(mesh_url: str) -> AsyncIterator[Mesh]:
    """An open client, in a namespace that no other test has."""
    from streammesh import Mesh

    async with Mesh.connect(mesh_url, namespace=f"test-{secrets.token_hex(5)}") as mesh:
        yield mesh
        for key in await _keys(mesh):
            await mesh.store.command("DEL", key)


@pytest.fixture
def agent() -> Agent:
    """An Agent without handlers: declare them in the test."""
    from streammesh import Agent

    return Agent("test", slots=8)


@pytest.fixture(name="run_until_idle")
def _run_until_idle(mesh: Mesh) -> Callable[..., Awaitable[Report]]:
    """`run_until_idle` of this module, on the fixture `mesh`: ``report = await run_until_idle(agent)``."""

    async def run(*agents: Agent, timeout: float = 30.0) -> Report:
        return await run_until_idle(mesh, *agents, timeout=timeout)

    return run


@pytest.fixture
async def mesh_clock(mesh: Mesh) -> MeshClock:
    """The clock of the fixture `mesh`, which can be moved: ``await mesh_clock.advance(days=30)``."""
    from streammesh.movable import MeshClock

    return await MeshClock.take(mesh)


@pytest.fixture
def no_leaked_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves unfinished tasks, or keys that would stay for ever. Does nothing in tests without `mesh`."""
    if "mesh" not in request.fixturenames:
        yield
        return
    mesh: Any = request.getfixturevalue("mesh")
    yield
    # The test's own loop does not run now: another client looks at the same mesh.
    from streammesh.sync import Mesh as SyncMesh

    with SyncMesh.connect(mesh.url, namespace=mesh.namespace, shards=mesh.keys.shards) as look:
        leaks = look.wait(leaked_keys)
    assert not leaks, "the test leaves behind: " + "; ".join(leaks)
