"""The client itself: every verb of `streammesh.Mesh`, waited for."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from anyio.from_thread import BlockingPortal, start_blocking_portal

from streammesh.errors import ConfigError, MeshError, PayloadConflict
from streammesh.journal import Head
from streammesh.mesh import Mesh as AsyncMesh
from streammesh.motions import Collected, Decision, Limits, Poll, Voters
from streammesh.peers import Membership, PeerInfo
from streammesh.registry import AgentInfo
from streammesh.sync.handles import Auction, DeadLetters, RunHandle, Schedule, Subscription, Task
from streammesh.tasks import Task as AsyncTask

__all__ = ["Mesh"]

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
        strategy: str = "pull",
        affinity: str | None = None,
        **fields: Any,
    ) -> Task:
        """Enqueue one task; options, atomicity and errors as in `streammesh.Mesh.enqueue`."""
        return self._task(
            self._wait(
                partial(
                    self._mesh.enqueue, capability, payload, id=id, delay=delay, at=at, deadline=deadline, priority=priority, to=to,
                    headers=headers, strategy=strategy, affinity=affinity, **fields,
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

    def runs(
        self,
        status: str | Collection[str] | None = None,
        workflow: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> list[Head]:
        """Heads of runs, newest first; what is meant by the words is said in `streammesh.Mesh.runs`."""
        return self._wait(self._mesh.runs, status, workflow, since, limit)

    # -- schedules

    def schedule(
        self,
        name: str,
        *,
        workflow: str | None = None,
        task: str | None = None,
        cron: str | None = None,
        every: float | timedelta | None = None,
        tz: str = "UTC",
        input: Mapping[str, Any] | None = None,
        version: int = 1,
        overlap: str = "skip",
        missed: str = "latest",
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: float = 0.0,
    ) -> Schedule:
        """Start a workflow, or enqueue a task, at set times; options, atomicity and errors as in `streammesh.Mesh.schedule`."""
        made = self._wait(
            partial(
                self._mesh.schedule, name, workflow=workflow, task=task, cron=cron, every=every, tz=tz, input=input, version=version,
                overlap=overlap, missed=missed, start=start, end=end, jitter=jitter,
            )
        )  # fmt: skip
        return Schedule(self, made)

    # -- auctions

    def auction(self, capability: str, payload: Mapping[str, Any] | None = None, /, **options: Any) -> Auction:
        """Give a task to the agent that bids best; options and errors as in `streammesh.Mesh.auction`."""
        return Auction(self, self._wait(partial(self._mesh.auction, capability, payload, **options)))

    # -- messages

    def send(self, to: str, type: str, payload: Any = None) -> str:
        """Send a message to one agent (id or name); returns its id. Raises UnknownAgent."""
        return self._wait(self._mesh.send, to, type, payload)

    def broadcast(self, type: str, payload: Any = None) -> str:
        """Send a message to every live agent; returns its id."""
        return self._wait(self._mesh.broadcast, type, payload)

    def publish(
        self, topic: str, payload: Any = None, *, require_subscriber: bool = False, id: str | None = None
    ) -> str:
        """Publish a message on a topic; returns its id. Errors as in `streammesh.Mesh.publish`."""
        return self._wait(partial(self._mesh.publish, topic, payload, require_subscriber=require_subscriber, id=id))

    def subscribe(
        self, topic: str, group: str | None = None, start: str = "tail", *, lease: float = 10.0, prefetch: int = 1
    ) -> Subscription:
        """Messages of a topic: ``with mesh.subscribe("news") as messages: for message in messages: …``; as `streammesh.Mesh.subscribe`."""
        self._opened()
        return Subscription(self, self._mesh.subscribe(topic, group, start, lease=lease, prefetch=prefetch))

    def request(
        self,
        type: str,
        payload: Any = None,
        *,
        to: str | None = None,
        timeout: float = 30.0,
        strategy: str = "two-choices",
        affinity: str | None = None,
        retries: int = 1,
        idempotent: bool = False,
        capability: str | None = None,
        version: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask one agent (``to``, else one that understands ``type``) and return its answer; as `streammesh.Mesh.request`."""
        return self._wait(
            partial(
                self._mesh.request, type, payload, to=to, timeout=timeout, strategy=strategy, affinity=affinity, retries=retries,
                idempotent=idempotent, capability=capability, version=version, metadata=metadata,
            )
        )  # fmt: skip

    # -- many agents at once

    def vote(
        self, question: str, options: Sequence[str], *, voters: Voters = None, id: str | None = None,
        **rules: Unpack[Poll],
    ) -> Decision:  # fmt: skip
        """Put a question to the vote and return its one decision; options and errors as in `streammesh.Mesh.vote`."""
        return self._wait(partial(self._mesh.vote, question, options, voters=voters, id=id, **rules))

    reach_consensus = vote

    def collect(self, type: str, payload: Any = None, *, to: Voters = None, **limits: Unpack[Limits]) -> Collected:
        """Ask many agents and gather what they return; options and errors as in `streammesh.Mesh.collect`."""
        return self._wait(partial(self._mesh.collect, type, payload, to=to, **limits))

    # -- agents and capabilities

    def agents(self) -> list[AgentInfo]:
        """The live agents."""
        return self._wait(self._mesh.agents)

    def peers(self, capability: str | None = None, *, fresh: bool = False) -> list[PeerInfo]:
        """The live agents (that offer ``capability``) from memory; ``fresh`` reads them anew."""
        return self._wait(partial(self._mesh.peers, capability, fresh=fresh))

    def find(
        self, capability: str, *, version: int | None = None, metadata: Mapping[str, str] | None = None
    ) -> list[PeerInfo]:
        """Who can do tasks of ``capability`` (in that version, saying that of it), those with free slots first; raises NoCapableAgent."""
        return self._wait(partial(self._mesh.find, capability, version=version, metadata=metadata))

    def members(self, since: str = "0-0") -> Iterator[Membership]:
        """Who joined, changed, left and died after the place ``since`` of the feed, in order, without end; '$' means from now."""
        return self._each(lambda m: m.members(since))

    def pause(self, capability: str, *, by: str = "client") -> bool:
        """Let no agent begin tasks of the capability; False when it was paused already."""
        return self._wait(partial(self._mesh.pause, capability, by=by))

    def resume(self, capability: str, *, by: str = "client") -> bool:
        """End a pause; False when there was none."""
        return self._wait(partial(self._mesh.resume, capability, by=by))
