"""Functions of RQ as capabilities: dispatched once, settled by callback or by looking, cancelled and stopped with the task."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streammesh import Agent, Mesh
from streammesh.errors import ConfigError, TaskCancelled, TaskDead, TaskExpired
from streammesh.rq.bridge import job_id
from tests.eventually import eventually
from tests.rq.reports import heavy

ROOT = Path(__file__).resolve().parent.parent.parent
Workers = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def workers(url: str) -> Iterator[Workers]:
    """Starts `rq worker` processes for a queue."""
    started: list[subprocess.Popen[bytes]] = []

    def start(queue: str, *options: str) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [sys.executable, "-m", "rq.cli", "worker", "-S", "json", "--quiet", "--url", url, *options, queue],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.wait()


@pytest.fixture
async def mesh(url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


@asynccontextmanager
async def serving_agent(mesh: Mesh, agent: Agent) -> AsyncIterator[Agent]:
    async with Mesh.connect(mesh.url, namespace=mesh.namespace, patience=None) as own:
        serving = asyncio.create_task(agent.serve(own))
        try:
            yield agent
        finally:
            agent.stop()
            await serving


def bridge(queue: str, *functions: str, retries: int = 0, timeout: float = 30.0, callbacks: bool = True) -> Agent:
    agent = Agent("bridge", lease=1.0)
    for name in functions:
        agent.rq(
            f"tests.rq.reports.{name}", queue=queue, capability=name.replace("_", "-"), retries=retries, timeout=timeout,
            callbacks=callbacks,
        )  # fmt: skip
    return agent


async def test_a_task_is_done_by_a_worker_of_rq(mesh: Mesh, namespace: str, workers: Workers) -> None:
    workers(namespace)
    async with serving_agent(mesh, bridge(namespace, "build")):
        result = await mesh.call("build", {"title": "Q3", "pages": 2}, timeout=20)
        assert (result["title"], result["pages"]) == ("Q3", 2)
        assert result["pid"] != os.getpid()


async def test_workers_without_streammesh_are_looked_after(mesh: Mesh, namespace: str, workers: Workers) -> None:
    workers(namespace)
    async with serving_agent(mesh, bridge(namespace, "build", callbacks=False)):
        assert (await mesh.call("build", {"title": "Q4"}, timeout=20))["title"] == "Q4"


async def test_its_exception_is_the_reason(mesh: Mesh, namespace: str, workers: Workers) -> None:
    workers(namespace)
    async with serving_agent(mesh, bridge(namespace, "broken", "unsendable")):
        with pytest.raises(TaskDead, match=r"queue .* failed: ValueError: no ink"):
            await mesh.call("broken", {"reason": "no ink"}, timeout=20)
        with pytest.raises(TaskDead, match="RqJobFailed"):
            await mesh.call("unsendable", {}, timeout=20)


async def test_each_retry_of_the_mesh_is_a_job_of_its_own(
    mesh: Mesh, namespace: str, workers: Workers, tmp_path: Path
) -> None:
    workers(namespace)
    async with serving_agent(mesh, bridge(namespace, "murdered", retries=1)):
        with pytest.raises(TaskDead, match="failed"):
            await mesh.call("murdered", {"path": str(tmp_path / "log")}, timeout=40)
    assert (tmp_path / "log").read_text().split() == ["began", "began"]


async def test_a_killed_work_horse_is_found_by_looking(
    mesh: Mesh, namespace: str, workers: Workers, tmp_path: Path
) -> None:
    workers(namespace)
    async with serving_agent(mesh, bridge(namespace, "murdered")):
        with pytest.raises(TaskDead, match=r"Work-horse terminated unexpectedly|failed"):
            await mesh.call("murdered", {"path": str(tmp_path / "log")}, timeout=20)


async def test_its_timeout_is_rqs(mesh: Mesh, namespace: str, workers: Workers, tmp_path: Path) -> None:
    workers(namespace)
    async with serving_agent(mesh, bridge(namespace, "endless", timeout=1.0)):
        with pytest.raises(TaskDead, match="JobTimeoutException"):
            await mesh.call("endless", {"path": str(tmp_path / "log")}, timeout=20)


async def test_cancelling_the_task_stops_the_job(mesh: Mesh, namespace: str, workers: Workers, tmp_path: Path) -> None:
    workers(namespace)
    async with serving_agent(mesh, bridge(namespace, "endless", "note")):
        task = await mesh.enqueue("endless", path=str(tmp_path / "log"))
        await eventually(lambda: (tmp_path / "log").exists(), timeout=20)
        await task.cancel()
        with pytest.raises(TaskCancelled):
            await task.result(timeout=20)
        # The worker is free again.
        assert await mesh.call("note", {"path": str(tmp_path / "log"), "word": "next"}, timeout=20) == "next"


async def test_cancelling_before_a_worker_comes_takes_the_job_away(
    mesh: Mesh, namespace: str, workers: Workers, tmp_path: Path
) -> None:
    async with serving_agent(mesh, bridge(namespace, "note")):
        task = await mesh.enqueue("note", path=str(tmp_path / "log"), word="never")
        await eventually(lambda: mesh.store.command("EXISTS", f"rq:job:{job_id(task.id, 0)}"))
        await task.cancel()
        with pytest.raises(TaskCancelled):
            await task.result(timeout=20)
        workers(namespace)
        await mesh.call("note", {"path": str(tmp_path / "log"), "word": "second"}, timeout=20)
    assert (tmp_path / "log").read_text().split() == ["second"]


async def test_a_deadline_ends_the_job_too(mesh: Mesh, namespace: str, workers: Workers, tmp_path: Path) -> None:
    workers(namespace)
    async with serving_agent(mesh, bridge(namespace, "endless", "note")):
        task = await mesh.enqueue("endless", {"path": str(tmp_path / "log")}, deadline=3)
        with pytest.raises((TaskExpired, TaskDead)):
            await task.result(timeout=20)
        assert await mesh.call("note", {"path": str(tmp_path / "log"), "word": "next"}, timeout=20) == "next"


async def test_an_agent_that_takes_over_waits_for_the_same_job(
    mesh: Mesh, url: str, namespace: str, workers: Workers, tmp_path: Path
) -> None:
    """The agent is killed while RQ works: the job is not dispatched again, its result is the task's."""
    workers(namespace)
    (tmp_path / "app.py").write_text(
        "from streammesh import Agent\n"
        "agent = Agent('bridge', lease=1.0)\n"
        f"agent.rq('tests.rq.reports.slow_note', queue={namespace!r}, capability='slow-note')\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-m", "streammesh", "-u", url, "-N", namespace, "agent", "--app", "app:agent"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        task = await mesh.enqueue(
            "slow-note", path=str(tmp_path / "log"), word="once", until=str(tmp_path / "go"), id="job:1.a"
        )
        await eventually(lambda: (tmp_path / "log").exists(), timeout=20)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    async with serving_agent(mesh, bridge(namespace, "slow_note")) as agent:
        await eventually(lambda: agent.serving and agent.serving.claims.claimed, timeout=20)
        (tmp_path / "go").touch()
        assert await task.result(timeout=20) == "once"
        assert (await task.record()).attempt == 2
    assert (tmp_path / "log").read_text().split() == ["once"]


async def test_a_job_that_somebody_deletes_is_told(mesh: Mesh, namespace: str) -> None:
    async with serving_agent(mesh, bridge(namespace, "note")):
        task = await mesh.enqueue("note", path="/nowhere", word="x")
        key = f"rq:job:{job_id(task.id, 0)}"
        await eventually(lambda: mesh.store.command("EXISTS", key))
        await mesh.store.command("DEL", key)
        with pytest.raises(TaskDead, match="is gone"):
            await task.result(timeout=20)


async def test_handlers_in_work_horses(mesh: Mesh, tmp_path: Path) -> None:
    async with serving_agent(mesh, heavy):
        done = [await mesh.call("square", {"n": n}, timeout=20) for n in (3, 4)]
        assert [one["squared"] for one in done] == [9, 16]
        assert len({os.getpid(), *(one["pid"] for one in done)}) == 3
        with pytest.raises(TaskDead, match="failed"):
            await mesh.call("crash", {}, timeout=20)
        with pytest.raises(TaskDead, match=r"took longer than 1 s|JobTimeout"):
            await mesh.call("spin", {"path": str(tmp_path / "log")}, timeout=20)
        assert (await mesh.call("square", {"n": 5}, timeout=20))["squared"] == 25


def test_what_cannot_be_meant_is_said() -> None:
    agent = Agent("bridge")
    with pytest.raises(ConfigError, match="dotted name such as reports"):
        agent.rq("build")
    with pytest.raises(ConfigError, match="timeout=0"):
        agent.rq("reports.build", timeout=0)
    with pytest.raises(ConfigError, match="at the top of a module"):

        @agent.capability("inner", isolation="rq")
        def inner() -> None: ...


def test_ids_of_jobs_are_rqs_letters_and_differ() -> None:
    assert job_id("doc-17", 0) == "doc-17"
    assert job_id("doc-17", 2) == "doc-17-r2"
    assert job_id("a:b", 0) != job_id("a.b", 0)
