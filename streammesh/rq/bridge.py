"""A task becomes a job of RQ, once, and the job's outcome becomes the task's.

The job's id is made of the task's, and RQ refuses a second job of an id: an agent that takes the task over after a crash
finds the job and waits for it. Its end is heard from the worker's callback, and looked for once a second, because a killed
work-horse calls nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from importlib.util import find_spec
from typing import Any

from streammesh import codec
from streammesh.connections import blocking_client
from streammesh.errors import ConfigError, RqJobFailed
from streammesh.handlers import TaskContext
from streammesh.mesh import Mesh
from streammesh.store import BLOCK, Store

__all__ = ["Bridge", "Job", "bridged", "job_id"]

#: Seconds between two looks at the jobs that are waited for, and between two clearings of what dead workers left.
LOOK, CLEAR = 1.0, 15.0
#: Seconds that an ended job and its result are kept by RQ.
KEPT = 86_400

_log = logging.getLogger("streammesh.agent")


@dataclass(frozen=True, slots=True)
class Job:
    """What is to run where: a function by its dotted name, a queue, seconds that it may take."""

    id: str
    function: str
    queue: str
    timeout: float


def job_id(task: str, failures: int) -> str:
    """The id of the job of a task after so many failures, in the letters that RQ allows.

    Attempts that ended without an outcome (their agent died) share it: they wait for one job.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", task)
    if plain != task:
        # Two tasks whose ids differ in what was replaced are still two jobs.
        plain = f"{plain[:96]}-{sha1(task.encode()).hexdigest()[:12]}"
    return f"{plain}-r{failures}" if failures else plain


class Bridge:
    """The way of one agent to the RQ at ``url`` (without one: at the mesh's own server). Opened by the first job."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._store: Store | None = None
        self._own = False
        self._client: Any = None
        self._stream = ""
        self._waiting: dict[str, tuple[Job, asyncio.Future[Any]]] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._look = asyncio.Event()
        self._opening = asyncio.Lock()

    async def run(
        self, mesh: Mesh, job: Job, payload: dict[str, Any], *, asked: Callable[[], bool], callbacks: bool = True
    ) -> Any:
        """Dispatch the job unless it is there already, wait for its end, and return its result (any JSON).

        Raises RqJobFailed when it failed, was stopped or is gone. When the wait is cancelled and ``asked()``, the job is
        cancelled too, or stopped; else it goes on, for whoever takes the task over.
        """
        await self._open(mesh)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[job.id] = job, future
        try:
            await asyncio.to_thread(self._dispatch, job, payload, callbacks)
            # It may have ended long ago, for the agent that had the task before.
            self._look.set()
            return await future
        except asyncio.CancelledError:
            if asked():
                await asyncio.shield(asyncio.to_thread(self._stop, job))
            raise
        finally:
            self._waiting.pop(job.id, None)

    async def _open(self, mesh: Mesh) -> None:
        async with self._opening:
            if self._loops:
                return
            url = self._url or mesh.url
            if url.startswith("memory://"):
                raise ConfigError("RQ needs a real server, and this mesh is in memory; use embedded:// or redis://")
            self._client = blocking_client(url)
            self._own = self._url is not None
            self._store = Store(url, name=f"{mesh.store.name}:rq", patience=None) if self._own else mesh.store
            self._stream = mesh.keys.rq
            newest = await self._store.command("XREVRANGE", self._stream, "+", "-", "COUNT", 1)
            cursor = str(newest[0][0]) if newest else "0-0"
            self._loops = [
                asyncio.create_task(self._supervised(partial(self._listen, cursor))),
                asyncio.create_task(self._supervised(self._reconcile)),
            ]

    async def close(self) -> None:
        """Let go of the connections; jobs go on."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []
        if self._own and self._store is not None:
            await self._store.close()
        if self._client is not None:
            await asyncio.to_thread(self._client.close)

    # -- hearing of ends

    async def _supervised(self, loop: Callable[[], Any]) -> None:
        while True:
            try:
                await loop()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                _log.warning("the bridge to RQ was interrupted: %s", error)
            await asyncio.sleep(LOOK)

    async def _listen(self, cursor: str) -> None:
        assert self._store is not None
        link = self._store.link("rq")
        while True:
            got = await self._store.command(
                "XREAD", "COUNT", 1000, "BLOCK", int(BLOCK * 1000), "STREAMS", self._stream, cursor,
                link=link, timeout=BLOCK + 3,
            )  # fmt: skip
            for _, entries in got or ():
                cursor = entries[-1][0]
                if any(
                    dict(zip(flat[::2], flat[1::2], strict=True)).get("job") in self._waiting for _, flat in entries
                ):
                    self._look.set()

    async def _reconcile(self) -> None:
        """Look at what is waited for whenever something ended, and once a second."""
        next_clear = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK if self._waiting else None):
                    await self._look.wait()
            self._look.clear()
            jobs = [job for job, _ in self._waiting.values()]
            if not jobs:
                continue
            clear = clock() >= next_clear
            if clear:
                next_clear = clock() + CLEAR
            for id, outcome in (await asyncio.to_thread(self._outcomes, jobs, clear)).items():
                _, future = self._waiting.get(id, (None, None))
                if future is None or future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome[0])

    # -- in a thread: RQ blocks

    def _dispatch(self, job: Job, payload: dict[str, Any], callbacks: bool) -> None:
        from rq import Callback, Queue
        from rq.exceptions import DuplicateJobError

        told: dict[str, Any] = {}
        if callbacks:
            told = {
                "on_success": Callback("streammesh.rq.done.succeeded"),
                "on_failure": Callback("streammesh.rq.done.failed"),
                "on_stopped": Callback("streammesh.rq.done.stopped"),
            }
        with contextlib.suppress(DuplicateJobError):
            Queue(job.queue, connection=self._client, serializer="json").enqueue_call(
                job.function, kwargs=payload, timeout=max(1, round(job.timeout)), job_id=job.id, unique=True,
                result_ttl=KEPT, failure_ttl=KEPT, meta={"streammesh": self._stream}, description=job.function, **told,
            )  # fmt: skip

    def _outcomes(self, jobs: list[Job], clear: bool) -> dict[str, Exception | tuple[Any]]:
        """Job id -> (result,) or the error, for those that have ended."""
        from rq.job import Job as RqJob
        from rq.registry import StartedJobRegistry

        if clear:
            # Jobs whose whole worker died become failed here; RQ's own workers do it now and then.
            for queue in {job.queue for job in jobs}:
                StartedJobRegistry(queue, connection=self._client, serializer="json").cleanup()
        found = RqJob.fetch_many([job.id for job in jobs], connection=self._client, serializer="json")
        outcomes: dict[str, Exception | tuple[Any]] = {}
        for job, known in zip(jobs, found, strict=True):
            where = f"job {job.id} of RQ's queue {job.queue}"
            if known is None:
                outcomes[job.id] = RqJobFailed(f"{where} is gone: somebody deleted it, or its server lost data")
                continue
            match str(known.get_status(refresh=False)).rpartition(".")[2].lower():
                case "finished":
                    outcomes[job.id] = self._result(known, where)
                case "failed":
                    outcomes[job.id] = RqJobFailed(f"{where} failed: {_last_line(known)}")
                case "stopped" | "canceled" as state:
                    outcomes[job.id] = RqJobFailed(f"{where} was {state}")
        return outcomes

    @staticmethod
    def _result(known: Any, where: str) -> Exception | tuple[Any]:
        try:
            value = known.return_value()
            codec.encode(value, what="result")
        except Exception as error:
            return RqJobFailed(f"the result of {where} cannot be read: {error}")
        return (value,)

    def _stop(self, job: Job) -> None:
        from rq.command import send_stop_job_command
        from rq.exceptions import InvalidJobOperation, NoSuchJobError
        from rq.job import Job as RqJob

        with contextlib.suppress(NoSuchJobError, InvalidJobOperation):
            known = RqJob.fetch(job.id, connection=self._client, serializer="json")
            if known.is_started:
                send_stop_job_command(self._client, job.id, serializer="json")
            elif not (known.is_finished or known.is_failed or known.is_stopped or known.is_canceled):
                known.cancel()


def bridged(bridge: Bridge, function: str, queue: str, timeout: float, *, callbacks: bool) -> Callable[..., Any]:
    """A handler that has RQ do the work. Raises ConfigError when it cannot be meant."""
    if find_spec("rq") is None:
        raise ConfigError("the bridge to RQ needs it: pip install 'streammesh[rq]'")
    if not re.fullmatch(r"[A-Za-z_][\w.]*\.[A-Za-z_]\w*", function):
        raise ConfigError(
            f"{function!r} is no function that RQ could import; expected a dotted name such as reports.build"
        )
    if not timeout > 0:
        raise ConfigError(f"timeout={timeout!r} is not usable; expected seconds above 0")

    async def run(streammesh_task: TaskContext, **payload: Any) -> Any:
        task = streammesh_task
        limit = timeout
        if task.deadline is not None:
            limit = max(1.0, min(limit, task.deadline / 1000 - time.time()))

        def asked() -> bool:
            """Cancelled, or past its deadline; else the agent only hands the task back."""
            late = task.deadline is not None and time.time() * 1000 > task.deadline - 500
            return task.cancel_requested or late

        job = Job(job_id(task.id, task.failures), function, queue, limit)
        return await bridge.run(task.mesh, job, payload, asked=asked, callbacks=callbacks)

    run.__doc__ = f"Runs {function} in RQ's queue {queue}."
    return run


def _last_line(known: Any) -> str:
    """The exception, without its traceback."""
    latest = known.latest_result()
    text = (latest.exc_string if latest is not None else "") or ""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "RQ kept no reason"
