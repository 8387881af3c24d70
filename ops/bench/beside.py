"""Beside DBOS: workflows of one step, and sequential steps, on the same machine in the same round and durability class.

Everything is fsynced before it is acknowledged: Valkey's append-only file with ``appendfsync always``, SQLite as DBOS opens it
(rollback journal, ``synchronous=FULL``), PostgreSQL as it comes (``synchronous_commit=on``). A step of DBOS is a function in the
process of its workflow; ours is measured so (`Run.step`), and as a task that another agent may take (`Run.call`), which DBOS has
no like of here. DBOS is not needed by anything else: ``pip install 'streammesh[bench]'``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from glob import glob
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from ops.bench import clients
from ops.bench.figures import Figure
from ops.bench.process import Child, Server, until
from ops.bench.size import Size

__all__ = ["ROLES", "measure"]

STEPS = 10

Say = Callable[[Any], None]
Heard = Callable[[], Awaitable[str]]


async def serve(url: str, say: Say, heard: Heard, *, count: int, chains: int) -> None:
    """The part of DBOS, on the database ``url``: ``count`` workflows of one step, then ``chains`` of ten, one at a time."""
    dbos: Any = import_module("dbos")

    def work() -> dict[str, Any]:
        dbos.DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})

        @dbos.DBOS.step()
        def nothing(n: int) -> int:
            return n

        @dbos.DBOS.workflow()
        def local(steps: int) -> int:
            for n in range(steps):
                nothing(n)
            return steps

        dbos.DBOS.launch()
        try:
            for handle in [dbos.DBOS.start_workflow(local, 1) for _ in range(5)]:
                handle.get_result()
            began = time.perf_counter()
            for handle in [dbos.DBOS.start_workflow(local, 1) for _ in range(count)]:
                handle.get_result()
            seconds = time.perf_counter() - began
            took = []
            for _ in range(chains):
                began = time.perf_counter()
                local(STEPS)
                took.append((time.perf_counter() - began) * 1000)
            return {"seconds": seconds, "took": took}
        finally:
            dbos.DBOS.destroy()

    say("ready")
    await heard()
    say(await asyncio.to_thread(work))


ROLES: dict[str, Callable[..., Awaitable[None]]] = {"dbos": serve}


@contextmanager
def _postgres() -> Iterator[str]:
    """A PostgreSQL of its own, with its defaults but for the place of its socket; '' where it is not installed."""
    found = [shutil.which("initdb") or "", *sorted(glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)]
    binaries = next((Path(path).parent for path in found if path), None)
    if binaries is None:
        yield ""
        return
    # It refuses to run as root.
    options: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    folder = tempfile.mkdtemp(prefix="streammesh-bench-pg-")
    if options:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    data = f"{folder}/data"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **options}
    subprocess.run([binaries / "initdb", "-D", data, "-U", "bench", "-A", "trust"], check=True, **quiet)
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder], **quiet
    )
    try:
        status = Path(data, "postmaster.pid")
        until(lambda: status.exists() and "ready" in status.read_text(), 30.0, "PostgreSQL is ready", pause=0.1)
        yield f"postgresql+psycopg://bench@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _theirs(url: str, size: Size) -> Any:
    child = Child("dbos", url, {"count": size.beside, "chains": size.chains // 10 or 1}).ready()
    try:
        child.say("go")
        return child.hear(300.0)
    finally:
        child.kill()


def _ours(workflow: str, size: Size) -> Any:
    """One agent, one client, a server that fsyncs what it acknowledges."""
    with Server() as server:
        server.client.config_set("appendfsync", "always")
        agent = server.child("flows-agent").ready()
        agent.say("go")
        until(lambda: asyncio.run(clients.ready(server.url)) == 1, 30.0, "the agent is ready", pause=0.1)
        said = {}
        for name, steps, count, at_once in (
            ("seconds", 1, size.beside, 256),
            ("took", STEPS, size.chains // 10 or 1, 1),
        ):
            client = server.child("flows", workflow=workflow, steps=steps, count=count, at_once=at_once).ready()
            client.say("go")
            said[name] = client.hear(180.0)[name]
        return said


def measure(size: Size, say: Callable[[str], None]) -> list[Figure]:
    """Speed beside DBOS; nothing, and why, where it is not installed."""
    if find_spec("dbos") is None:
        say("dbos: left out, because DBOS is not installed: pip install 'streammesh[bench]'")
        return []
    speeds: dict[str, list[float]] = {}
    steps: dict[str, list[float]] = {}

    def add(name: str, said: Any) -> None:
        speeds.setdefault(name, []).append(size.beside / said["seconds"])
        steps.setdefault(name, []).append(median(said["took"]) / STEPS)
        say(f"    {name}: {speeds[name][-1]:,.0f} workflows/s, {steps[name][-1]:.2f} ms a step")

    with _postgres() as postgres:
        if not postgres:
            say("dbos: without PostgreSQL, which is not installed")
        for turn in range(min(size.rounds, 3)):
            say(f"dbos, round {turn + 1}")
            add("local", _ours("local", size))
            add("remote", _ours("chain", size))
            with tempfile.TemporaryDirectory(prefix="streammesh-bench-") as folder:
                add("DBOS, SQLite", _theirs(f"sqlite:///{folder}/dbos.sqlite", size))
            if postgres:
                add("DBOS, PostgreSQL", _theirs(postgres, size))
    found = []
    for other in [name for name in speeds if name.startswith("DBOS")]:
        found.append(Figure.shown(f"{other}: one-step workflows", "/s", speeds[other]))
        for kind in ("local", "remote"):
            found.append(Figure(f"    ours, {kind}", "/s", tuple(speeds[kind]), other, tuple(speeds[other])))
        found.append(Figure.shown(f"{other}: one sequential step", "ms", steps[other]))
        for kind in ("local", "remote"):
            found.append(Figure(f"    ours, {kind}", "ms", tuple(steps[kind]), other, tuple(steps[other])))
    return found
