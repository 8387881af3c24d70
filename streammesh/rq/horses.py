"""Private RQ workers of one agent: handlers with isolation="rq" run in their work-horses, one process for each attempt.

The agent keeps the lease and beats; the work-horse may leak, block or crash. They are started by the first task and end with
the agent, also when it is killed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from streammesh.mesh import Mesh
from streammesh.rq.bridge import Bridge, Job, job_id

__all__ = ["Horses"]

#: Seconds that a handler without a timeout may take: RQ has no word for "as long as it likes".
LONGEST = 7 * 86_400


class Horses:
    """Up to ``limit`` workers for the agent ``me``."""

    def __init__(self, mesh: Mesh, me: str, limit: int) -> None:
        self._mesh = mesh
        self._queue = f"streammesh-{me.replace('.', '-')}"
        self._bridge = Bridge()
        self._limit = min(limit, os.cpu_count() or 1)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._running = 0

    async def run(
        self, function: Callable[..., Any], task: str, attempt: int, payload: dict[str, Any], timeout: float | None
    ) -> Any:
        """Run a handler's function in a work-horse and return its result. Raises RqJobFailed."""
        self._running += 1
        try:
            self._staff()
            # An attempt is never continued by another agent here: its queue dies with this one.
            id = f"{job_id(task, 0)}-a{attempt}"
            job = Job(id, "streammesh.rq.work.handle", self._queue, timeout or LONGEST)
            where = f"{function.__module__}:{function.__qualname__}"
            return await self._bridge.run(self._mesh, job, {"where": where, "payload": payload}, asked=lambda: True)
        finally:
            self._running -= 1

    def _staff(self) -> None:
        """As many workers as there is work for, up to the limit; one that died is replaced."""
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < min(self._running, self._limit):
            worker = subprocess.Popen(
                [sys.executable, "-m", "streammesh.rq.work", self._queue],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            assert worker.stdin
            worker.stdin.write(f"{self._mesh.url}\n".encode())
            worker.stdin.flush()
            self._workers.append(worker)

    async def close(self) -> None:
        """End the workers."""
        await asyncio.to_thread(self._end)
        await self._bridge.close()

    def _end(self) -> None:
        for worker in self._workers:
            worker.terminate()
            if worker.stdin:
                worker.stdin.close()
        for worker in self._workers:
            try:
                worker.wait(timeout=5)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
