"""The same client for plain scripts: every call is run by the async client, on a loop in a thread of its own.

    with Mesh.connect("redis://localhost:6379") as mesh:
        task = mesh.enqueue("summarize", text="…", id="doc-17")
        print(task.result(timeout=30))

Promises and errors are those of `streammesh.Mesh`: nothing is implemented here a second time. A Mesh may be used by many
threads at once; a call that is interrupted (Ctrl-C) is given up on the loop as well. In a handler that runs in a thread,
what is enqueued here inherits the correlation id. In a coroutine use the async client instead: these calls would block its loop.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from streammesh.dead import Letter
from streammesh.errors import ConfigError, MeshError, PayloadConflict
from streammesh.journal import Head
from streammesh.mesh import Mesh as AsyncMesh
from streammesh.record import Record
from streammesh.registry import AgentInfo
from streammesh.runs import RunHandle as AsyncRunHandle
from streammesh.tasks import Task as AsyncTask

__all__ = ["DeadLetters", "Mesh", "RunHandle", "Task"]

_Result = TypeVar("_Result")


class Mesh:
    """A client of one mesh. Make it with `connect`, use it as ``with``. Safe to share between threads."""

    def __init__(self, mesh: AsyncMesh) -> None:
        self._mesh = mesh
        self._running: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None
        self._thread = 0
        self.dead = DeadLetters(self)

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        namespace: str | None = None,
        shards: int | None = None,
        patience: float | None = 10.0,
        name: str = "streammesh",
        unsafe: bool = False,
    ) -> Self:
        """A client for the mesh ``namespace`` at ``url``; nothing is sent before ``with`` or `open`.

        What is left out is found as by `streammesh.Mesh.connect`.
        """
        return cls(
            AsyncMesh.connect(url, namespace=namespace, shards=shards, patience=patience, name=name, unsafe=unsafe)
        )

    def open(self) -> Self:
        """Start the loop's thread and connect. Raises StoreUnavailable, ServerUnfit, MeshMismatch."""
        if self._portal is not None:
            raise ConfigError("the mesh is open already; use one `with` for each Mesh")
        self._running = start_blocking_portal("asyncio", name="streammesh")
        self._portal = self._running.__enter__()
        self._thread = self._portal.call(threading.get_ident)
        try:
            self._wait(self._mesh.open)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Close the connections and end the thread. Calls that still wait in other threads are cancelled."""
        if self._portal is None or self._running is None:
            return
        try:
            self._wait(self._mesh.close)
        finally:
            # With an error, the portal cancels what is still on the loop instead of waiting for it.
            self._portal = None
            self._running.__exit__(MeshError, MeshError("closed"), None)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._mesh)

    @property
    def namespace(self) -> str:
        """The mesh's name."""
        return self._mesh.namespace

    # -- onto the loop and back

    def _opened(self) -> BlockingPortal:
        if self._portal is None:
            raise ConfigError("the mesh is not open; use `with Mesh.connect(…) as mesh:`")
        return self._portal

    def _wait(self, function: Callable[..., Awaitable[_Result]], *args: Any) -> _Result:
        portal = self._opened()
        if threading.get_ident() == self._thread:
            raise ConfigError(
                "called on the mesh's own loop, where the payloads of a map are drawn; make a list of them first"
            )
        future = portal.start_task_soon(function, *args)
        try:
            return future.result()
        except CancelledError:
            raise MeshError("the mesh was closed while this call waited; what it sent may have been done") from None
        except BaseException:
            # Interrupted while it waits: nobody would want the answer any more.
            future.cancel()
            raise

    def _each(self, make: Callable[[AsyncMesh], AsyncIterator[_Result]]) -> Iterator[_Result]:
        stream = make(self._mesh)

        async def step() -> tuple[_Result, ...]:
            async for item in stream:
                return (item,)
            return ()

        try:
            while got := self._wait(step):
                yield got[0]
        finally:
            close: Callable[[], Awaitable[None]] | None = getattr(stream, "aclose", None)
            if close is not None and self._portal is not None:
                self._wait(close)

    def wait(self, work: Callable[[AsyncMesh], Awaitable[_Result]]) -> _Result:
        """Run something on the async client, wait for it and return its result: the way to every room.

        mesh.wait(lambda m: m.registry.drain("librarian.7"))
        """
        return self._wait(work, self._mesh)

    def _task(self, task: AsyncTask) -> Task:
        return Task(self, task)

    # -- tasks

    def enqueue(
        self,
        capability: str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        id: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        deadline: float | datetime | None = None,
        priority: str = "normal",
        to: str | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Task:
        """Enqueue one task; options, atomicity and errors as in `streammesh.Mesh.enqueue`."""
        return self._task(
            self._wait(
                partial(
                    self._mesh.enqueue, capability, payload, id=id, delay=delay, at=at, deadline=deadline, priority=priority, to=to,
                    headers=headers, **fields,
                )
            )
        )  # fmt: skip

    def enqueue_many(
        self, capability: str, payloads: Iterable[Mapping[str, Any]], /, *, to: str | None = None, **options: Any
    ) -> list[Task | PayloadConflict]:
        """Enqueue many tasks, 1,000 in a round trip; a Task or a PayloadConflict for each, in order."""
        verdicts = self._wait(partial(self._mesh.enqueue_many, capability, payloads, to=to, **options))
        return [self._task(one) if isinstance(one, AsyncTask) else one for one in verdicts]

    def call(
        self,
        capability: str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Enqueue a task and wait for its result. Options and errors as for `enqueue` and `Task.result`."""
        return self._wait(partial(self._mesh.call, capability, payload, timeout=timeout, **options))

    def map(
        self,
        capability: str,
        payloads: Iterable[Mapping[str, Any]],
        /,
        *,
        limit: int = 1000,
        ordered: bool = True,
        raising: bool = True,
    ) -> Iterator[Any]:
        """Run ``payloads`` with at most ``limit`` unfinished at once; yield results in order, or as they complete.

        The payloads are drawn lazily, on the loop's thread.
        """
        return self._each(lambda m: m.map(capability, payloads, limit=limit, ordered=ordered, raising=raising))

    def task(self, id: str) -> Task:
        """A handle on a task by its id, also after a restart."""
        self._opened()
        return self._task(self._mesh.task(id))

    # -- runs

    def start(
        self,
        workflow: str,
        input: Mapping[str, Any] | None = None,
        /,
        *,
        id: str | None = None,
        version: int = 1,
        on_conflict: str = "attach",
        signals: Iterable[tuple[str, Any]] = (),
        **fields: Any,
    ) -> RunHandle:
        """Start a run of a workflow; options, atomicity and errors as in `streammesh.Mesh.start`."""
        return RunHandle(
            self,
            self._wait(
                partial(
                    self._mesh.start, workflow, input, id=id, version=version, on_conflict=on_conflict, signals=signals, **fields
                )
            ),
        )  # fmt: skip

    def run(self, id: str) -> RunHandle:
        """A handle on a run by its id, also after a restart."""
        self._opened()
        return RunHandle(self, self._mesh.run(id))

    # -- messages

    def send(self, to: str, type: str, payload: Any = None) -> str:
        """Send a message to one agent (id or name); returns its id. Raises UnknownAgent."""
        return self._wait(self._mesh.send, to, type, payload)

    def broadcast(self, type: str, payload: Any = None) -> str:
        """Send a message to every live agent; returns its id."""
        return self._wait(self._mesh.broadcast, type, payload)

    def request(self, type: str, payload: Any = None, *, to: str | None = None, timeout: float = 30.0) -> Any:
        """Ask one agent (``to``, else any that understands ``type``) and return its answer."""
        return self._wait(partial(self._mesh.request, type, payload, to=to, timeout=timeout))

    # -- agents and capabilities

    def agents(self) -> list[AgentInfo]:
        """The live agents."""
        return self._wait(self._mesh.agents)

    def pause(self, capability: str, *, by: str = "client") -> bool:
        """Let no agent begin tasks of the capability; False when it was paused already."""
        return self._wait(partial(self._mesh.pause, capability, by=by))

    def resume(self, capability: str, *, by: str = "client") -> bool:
        """End a pause; False when there was none."""
        return self._wait(partial(self._mesh.resume, capability, by=by))


class Task:
    """A handle on one task, as `streammesh.Task`: its id, and whether this call created it."""

    __slots__ = ("_mesh", "_task")

    def __init__(self, mesh: Mesh, task: AsyncTask) -> None:
        self._mesh = mesh
        self._task = task

    @property
    def id(self) -> str:
        return self._task.id

    @property
    def created(self) -> bool:
        """False when the id was known before."""
        return self._task.created

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the outcome and return the result; errors as in `streammesh.Task.result`."""
        return self._mesh._wait(self._task.result, timeout)

    def record(self) -> Record:
        """Read the record. Raises TaskNotFound."""
        return self._mesh._wait(self._task.record)

    def cancel(self, *, by: str = "client") -> str:
        """Cancel the task; returns 'ok', 'running <agent>' (it was asked to stop), 'closed <state>' or 'missing'."""
        return self._mesh._wait(partial(self._task.cancel, by=by))

    def __repr__(self) -> str:
        return repr(self._task)


class RunHandle:
    """A handle on one run, as `streammesh.RunHandle`: its id, and whether this call created it."""

    __slots__ = ("_mesh", "_run")

    def __init__(self, mesh: Mesh, run: AsyncRunHandle) -> None:
        self._mesh = mesh
        self._run = run

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def created(self) -> bool:
        """False when a run of that id was there already."""
        return self._run.created

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the result; errors as in `streammesh.RunHandle.result`."""
        return self._mesh._wait(self._run.result, timeout)

    def head(self) -> Head:
        """The head of the run: its state and fields. Raises RunNotFound."""
        return self._mesh._wait(self._run.head)

    def status(self) -> Mapping[str, Any]:
        """What the workflow said by `Run.set_status`, without waking it."""
        return self._mesh._wait(self._run.status)

    def history(self) -> list[dict[str, Any]]:
        """The journal, oldest record first."""
        return self._mesh._wait(self._run.history)

    def signal(self, name: str, payload: Any = None, *, id: str = "") -> str:
        """Send a signal; with an ``id`` it is accepted once. Returns 'ok', 'duplicate' or 'closed'."""
        return self._mesh._wait(partial(self._run.signal, name, payload, id=id))

    def cancel(self, *, by: str = "client") -> str:
        """Ask the workflow to stop: it gets a CancelledError, and may clean up. Returns 'ok' or 'closed'."""
        return self._mesh._wait(partial(self._run.cancel, by=by))

    def terminate(self, *, by: str = "client") -> str:
        """End the run at once; no more of its code runs. Returns 'ok' or 'closed <state>'."""
        return self._mesh._wait(partial(self._run.terminate, by=by))

    def pause(self, *, by: str = "client") -> str:
        """Let no agent go on with the run until `resume`."""
        return self._mesh._wait(partial(self._run.pause, by=by))

    def resume(self, *, by: str = "client") -> str:
        """Go on with a paused or stuck run."""
        return self._mesh._wait(partial(self._run.resume, by=by))

    def __repr__(self) -> str:
        return repr(self._run)


class DeadLetters:
    """The room of dead letters: list, replay, remove."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def counts(self) -> dict[str, int]:
        """Capability -> number of dead letters, only where there are any."""
        return self._mesh.wait(lambda m: m.dead.counts())

    def letters(
        self, capability: str | None = None, *, error: str | None = None, since: str | None = None
    ) -> Iterator[Letter]:
        """Dead letters, oldest first per capability; ``error`` is a regular expression over reason and error, ``since`` an ISO time."""
        return self._mesh._each(lambda m: m.dead.letters(capability, error=error, since=since))

    def replay(self, letter: Letter) -> str:
        """Run a dead task again under the same id with a fresh budget; 'ok <id>', 'open <state>' or 'missing'."""
        return self._mesh.wait(lambda m: m.dead.replay(letter))

    def remove(self, letter: Letter) -> bool:
        """Take a letter away for good. False when it was gone already."""
        return self._mesh.wait(lambda m: m.dead.remove(letter))
